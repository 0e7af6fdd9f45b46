// Skopeo: runs skopeo(1), by which this command talks to registries.
//
// Model    skopeo knows every registry's ways of authentication; it is told where credentials and
//          certificates are, never what they are.
// Errors   ENOENT the registry has no such thing, EACCES it wants other credentials, ETIMEDOUT,
//          EINTR, EIO anything else, in skopeo's words without queries of URLs; ENOPKG skopeo is
//          not installed.
// Threads  one thread only.
// Owns     a directory with links to certificates, which skopeo wants in one place; it goes with
//          this.

#ifndef HOST_REGISTRIES_SKOPEO_H_
#define HOST_REGISTRIES_SKOPEO_H_

#include <memory>
#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "host/registries/registry_options.h"

namespace host {

class Skopeo {
 public:
  static cachecore::Result<std::unique_ptr<Skopeo>> Make(const RegistryAccess& access);
  ~Skopeo();
  Skopeo(const Skopeo&) = delete;
  Skopeo& operator=(const Skopeo&) = delete;

  // How to reach a registry; `side` is "" for inspect, "src-" or "dest-" for copy.
  std::vector<std::string> AccessFlags(const std::string& side) const;
  // `skopeo ARGUMENTS`: what it wrote to stdout.
  cachecore::Result<std::string> Run(const std::vector<std::string>& arguments,
                                     const cachecore::Deadline& deadline) const;

 private:
  Skopeo(std::string program, const RegistryAccess& access)
      : program_(std::move(program)), access_(access) {}
  cachecore::Status LinkCertificates();

  const std::string program_;
  const RegistryAccess access_;
  std::string certificates_;  // Directory; "" when there are none.
};

// Which policy decides what skopeo may copy: the user's own, the machine's, or, where there is
// neither, the one that Debian installs, which takes everything.
std::vector<std::string> SkopeoPolicyFlags();

// skopeo's last words, as a sentence.
std::string SkopeoSentence(const std::string& errors);

}  // namespace host

#endif  // HOST_REGISTRIES_SKOPEO_H_
