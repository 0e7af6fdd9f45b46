// The parts of URLs that decide where a request may take its credentials.

#ifndef FETCHER_HTTP_URL_H_
#define FETCHER_HTTP_URL_H_

#include <string>

namespace fetcher {

struct UrlParts {
  std::string scheme;  // In lower case; "" if it is no URL.
  std::string host;
  std::string port;  // The scheme's own if the URL names none.
  std::string user;  // Decoded.
  std::string password;

  bool IsSamePlace(const UrlParts& other) const {
    return !scheme.empty() && scheme == other.scheme && host == other.host && port == other.port;
  }
};

UrlParts SplitUrl(const std::string& url);

}  // namespace fetcher

#endif  // FETCHER_HTTP_URL_H_
