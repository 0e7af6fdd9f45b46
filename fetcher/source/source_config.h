// SourceConfig: where the objects of one volume come from, as its JSON file says.
//
// Model    {"version":1, "origins":["http://h/base/","file:///dir/"], "query":"?a=b",
//          "ca_file":"/x.pem", ...}; all but version and origins may be absent.  An object's URL is
//          origin + key.
//          "files" are the files of this machine that the source needs: path, owner and, for
//          an object, its URL and inode, as they were when it was mounted.
//          "verity":"sha256:HEX" is the fs-verity digest, "merkle":"KEY" its tree's key.
//          Origins and query may carry credentials: only RedactUrl's result may be shown.
// Errors   ENOENT no such file; EINVAL it is not a source file, saying why; others from reading it.
// Threads  immutable values; LoadSourceConfig reads one file.
// See      docs/protocol.md "Sources".

#ifndef FETCHER_SOURCE_SOURCE_CONFIG_H_
#define FETCHER_SOURCE_SOURCE_CONFIG_H_

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/system/pinned_file.h"
#include "cachecore/url/proxy_settings.h"
#include "cachecore/verity/verity_tree.h"
#include "fetcher/source/origin_options.h"

namespace fetcher {

struct LocalFile {
  cachecore::FilePin pin;
  std::string url;  // Of an object; "" for a file of certificates or secrets.
};

// What an origin's URL begins with, and so which backend reads it.
enum class OriginScheme { kFile, kHttp, kRegistry, kS3 };

// What one registry among the origins has of its own; it takes the place of the source's.
struct RegistryAccess {
  std::string ca_file;
  std::string client_cert;
  std::string client_key;
  bool insecure = false;  // Its certificate is not looked at.
};

struct SourceConfig {
  std::vector<std::string> origins;  // In order of preference, each ending in '/'.
  std::string query;
  std::string ca_file;
  CredentialFiles files;                             // For https origins.
  S3Options s3;                                      // For s3 origins.
  RegistryOptions registry;                          // For oci origins.
  std::map<std::string, RegistryAccess> registries;  // By HOST[:PORT].
  cachecore::ProxySettings proxy = cachecore::ProxySettings::FromEnvironment();
  std::optional<cachecore::Digest> verity;  // What the object's bytes are checked against.
  std::string merkle;                       // The key of its Merkle tree; "": by its own key.
  std::string stamp;                        // Tells this text from the next.
  std::vector<LocalFile> local;             // What of it lies on this machine.

  // How `path`, a file of certificates or secrets, is to be opened; nullopt if it is not of this
  // source.
  std::optional<cachecore::FilePin> FindFile(const std::string& path) const;
};

// EINVAL for a URL that no backend reads.
cachecore::Result<OriginScheme> OriginSchemeOf(std::string_view url);

cachecore::Result<SourceConfig> ParseSourceConfig(std::string_view json);
// Every error names `path`.
cachecore::Result<SourceConfig> ReadSourceConfig(const cachecore::UniqueFd& file,
                                                 const std::string& path);
// EINVAL unless a source file can be named after it.
cachecore::Status CheckVolumeKey(const std::string& volume);
// Reads DIR/VOLUME.json.  Every error names the file.
cachecore::Result<SourceConfig> LoadSourceConfig(const std::string& dir, const std::string& volume);

// EINVAL unless `key` can stand as the last segment of a URL and names no directory.
cachecore::Status CheckObjectKey(std::string_view key);
// Without user, password, query and fragment.
std::string RedactUrl(std::string_view url);
// With its middle left out if it is longer than kShownUrlBytesMax.
std::string ShortUrl(std::string url);

}  // namespace fetcher

#endif  // FETCHER_SOURCE_SOURCE_CONFIG_H_
