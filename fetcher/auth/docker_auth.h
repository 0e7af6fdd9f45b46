// DockerAuth: the credentials for each registry, from the files that `docker login` and similar
// programs write.  Pure.
//
// Model    {"auths":{"HOST[/PATH]":{"auth":BASE64 of USER:PASSWORD,"identitytoken":T}},
//          "credHelpers":{"HOST":NAME}, "credsStore":NAME}.  The entry with the longest path that
//          begins the repository's counts.  A helper of the host's own goes before everything, the
//          store before entries.
// Errors   EINVAL: not such a file.  No message quotes any of it.
// Threads  immutable value.
// See      docker's config.json, containers-auth.json(5)

#ifndef FETCHER_AUTH_DOCKER_AUTH_H_
#define FETCHER_AUTH_DOCKER_AUTH_H_

#include <map>
#include <string>
#include <string_view>

#include "cachecore/base/status.h"

namespace fetcher {

struct RegistryCredentials {
  std::string user;
  std::string password;
  std::string identity_token;  // To be swapped for tokens; then the others do not count.

  bool empty() const { return user.empty() && password.empty() && identity_token.empty(); }
};

struct AuthChoice {
  std::string helper;  // The program docker-credential-HELPER is to be asked; "": none.
  std::string server;  // About this.
  RegistryCredentials credentials;  // Without a helper, or if that knows nothing.
};

class DockerAuth {
 public:
  static cachecore::Result<DockerAuth> Parse(std::string_view text);
  // Of ~/.dockercfg, which is the "auths" alone.
  static cachecore::Result<DockerAuth> ParseOldest(std::string_view text);

  // `registry` is HOST[:PORT].
  AuthChoice Find(const std::string& registry, const std::string& repository) const;

 private:
  std::map<std::string, RegistryCredentials> entries_;  // By HOST[:PORT][/PATH].
  std::map<std::string, std::string> helpers_;          // The same.
  std::string store_;
};

// What docker-credential-NAME says.  EINVAL: no such thing.
cachecore::Result<RegistryCredentials> ParseHelperAnswer(std::string_view text);

// The host that answers for a registry: all the same, but for Docker's own.
std::string ApiHost(const std::string& registry);

}  // namespace fetcher

#endif  // FETCHER_AUTH_DOCKER_AUTH_H_
