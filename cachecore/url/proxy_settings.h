// ProxySettings: which proxy a request goes through, by the rules that Go's programs (skopeo,
// containerd, docker) have for the same environment variables.
//
// Model    HTTP_PROXY for http, HTTPS_PROXY for https, each in either case; ALL_PROXY, as libcurl
//          has it, for what neither names.  NO_PROXY lists what is reached directly: host names
//          (with what is below them; below alone with a leading dot), addresses, networks
//          (10.0.0.0/8), each with a port if need be, or `*`.  This machine is always reached
//          directly.
// Threads  immutable value; FromEnvironment reads the environment.

#ifndef CACHECORE_URL_PROXY_SETTINGS_H_
#define CACHECORE_URL_PROXY_SETTINGS_H_

#include <string>
#include <string_view>

namespace cachecore {

struct ProxySettings {
  std::string http;
  std::string https;
  std::string no;

  static ProxySettings FromEnvironment();

  bool empty() const { return http.empty() && https.empty(); }
  // One of the URLs has a user, with a password or alone, which may be a token.
  bool HasUser() const;
  // The proxy for the URL `text`; "" is none.
  std::string For(const std::string& text) const;
};

// The user and password of a proxy's URL with their '@', as written; "" if it has none.
std::string ProxyUser(std::string_view url);
// That URL fit to be shown: without user, password and what follows the port.
std::string ShownProxy(std::string_view url);

}  // namespace cachecore

#endif  // CACHECORE_URL_PROXY_SETTINGS_H_
