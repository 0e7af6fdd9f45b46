// URLs, taken apart in one place by libcurl's parser, which the fetcher's requests use too.
//
// Model    ParseUrl accepts SCHEME://[USER[:PASSWORD]@]HOST[:PORT][/PATH][?QUERY][#FRAGMENT] with
//          any scheme, and file:///PATH.  libcurl judges the URL and gives host, port and user; the
//          parts "as written" are those of the text, since names of volumes are made of them.
// Errors   nullopt: libcurl would not take that URL, its port is 0 or empty, or its host is empty.
// Threads  thread-safe: no state.
// See      libcurl-url(3)

#ifndef CACHECORE_URL_URL_H_
#define CACHECORE_URL_URL_H_

#include <optional>
#include <string>
#include <string_view>

namespace cachecore {

struct Url {
  std::string scheme;  // In lower case; "" if this is no URL.
  bool has_user = false;
  std::string user;  // Percent-decoded.
  std::string password;
  std::string authority;  // HOST[:PORT] as written, without user and password.
  std::string host;       // In lower case; an IPv6 address as [ADDRESS] or [ADDRESS%25ZONE].
  std::string port;       // The scheme's own if the URL names none; "" if it has none.
  bool has_default_port = false;  // `port` is the scheme's own.
  std::string path;               // As written; "" or from its '/' on.
  std::string query;              // As written; "" or from its '?' on.
  std::string fragment;           // As written; "" or from its '#' on.

  // SCHEME://HOST[:PORT], the host and port as written.
  std::string Place() const { return scheme + "://" + authority; }
  // HOST or HOST:PORT in one spelling, without the scheme's own port.
  std::string CanonicalAuthority() const;
  // http or https with nothing but host and port.
  bool IsHttpServer() const {
    return (scheme == "http" || scheme == "https") && !has_user && path.empty() && query.empty() &&
           fragment.empty();
  }
  bool IsSamePlace(const Url& other) const {
    return !scheme.empty() && scheme == other.scheme && host == other.host && port == other.port;
  }
};

std::optional<Url> ParseUrl(const std::string& text);

// What stands before "://", in lower case; "" if `text` has no scheme.  `text` need not be a URL.
std::string UrlScheme(std::string_view text);
// What stands after "://"; all of `text` if it has no scheme.
std::string_view AfterScheme(std::string_view text);
// `text` without user and password, for messages.  It need not be a URL: where no host can be told
// from a user, all before the last '@' is left out.
std::string WithoutUser(std::string_view text);

}  // namespace cachecore

#endif  // CACHECORE_URL_URL_H_
