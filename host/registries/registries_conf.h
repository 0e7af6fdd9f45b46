// RegistriesConf: where registries are really reached, as skopeo, podman and their kin are told.
//
// Model    registries.conf (the user's, else the machine's) and the files of registries.conf.d name
//          mirrors, other locations, registries without trusted TLS, and blocked ones; the entry
//          with the longest prefix counts.  certs.d/HOST[:PORT] has certificates.  skopeo reads
//          them itself; this is for the fetcher's transfers, which are to go the same ways.
// Errors   EACCES the registry is blocked; ENOTSUP, with the cure, what the fetcher can't follow;
//          EBADMSG a file that can't be understood.  Each names the file.
// Threads  immutable value; Load reads files.
// See      containers-registries.conf(5), containers-certs.d(5); docs/sources.md, "Registries".

#ifndef HOST_REGISTRIES_REGISTRIES_CONF_H_
#define HOST_REGISTRIES_REGISTRIES_CONF_H_

#include <map>
#include <string>
#include <vector>

#include "cachecore/base/status.h"
#include "host/registries/image_reference.h"

namespace host {

// HOST[:PORT]/REPO and :TAG or @DIGEST, by which rules know an image; Docker's own registry in
// full.
std::string FullName(const ImageReference& image);

struct PullSource {
  std::string repository;  // HOST[:PORT]/REPO
  bool is_insecure = false;

  std::string Registry() const { return repository.substr(0, repository.find('/')); }
};

class RegistriesConf {
 public:
  static cachecore::Result<RegistriesConf> Load();
  // For tests: the files in the order in which they count, the last one most.
  static cachecore::Result<RegistriesConf> Parse(
      const std::vector<std::pair<std::string, std::string>>& texts_by_file);

  // Where the blobs of `image` are, in the order in which they are tried.
  cachecore::Result<std::vector<PullSource>> SourcesOf(const ImageReference& image) const;

 private:
  struct Endpoint {
    std::string location;
    bool is_insecure = false;
    std::string pull;  // Of a mirror: "all", "digest-only" or "tag-only".
  };
  struct Entry {
    std::string file;
    Endpoint own;
    std::vector<Endpoint> mirrors;
    bool is_blocked = false;
    bool mirrors_by_digest_only = false;
  };
  friend class RegistriesConfReader;

  std::map<std::string, Entry> entries_;  // By prefix.
};

struct RegistryCertificates {
  std::string ca_file;  // Absolute paths, or "".
  std::string client_cert;
  std::string client_key;

  bool empty() const { return ca_file.empty() && client_cert.empty(); }
};
// What certs.d has for a registry.
cachecore::Result<RegistryCertificates> CertificatesOf(const std::string& registry);

}  // namespace host

#endif  // HOST_REGISTRIES_REGISTRIES_CONF_H_
