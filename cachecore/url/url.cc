#include "cachecore/url/url.h"

#include <curl/curl.h>

#include <algorithm>
#include <cctype>
#include <memory>

#include "cachecore/base/parse_text.h"

namespace cachecore {
namespace {

constexpr std::string_view kSchemeEnd = "://";

class Parser {
 public:
  bool Parse(const std::string& text) {
    return handle_ != nullptr &&
           curl_url_set(handle_.get(), CURLUPART_URL, text.c_str(),
                        CURLU_NON_SUPPORT_SCHEME | CURLU_PATH_AS_IS) == CURLUE_OK;
  }
  // nullopt when the URL has no such part.
  std::optional<std::string> Part(CURLUPart part, unsigned flags = 0) const {
    char* text = nullptr;
    if (curl_url_get(handle_.get(), part, &text, flags) != CURLUE_OK) return std::nullopt;
    std::string copy = text;
    curl_free(text);
    return copy;
  }

 private:
  const std::unique_ptr<CURLU, void (*)(CURLU*)> handle_{curl_url(), curl_url_cleanup};
};

// Where the authority of a text with a scheme begins and ends.
struct AuthorityBounds {
  size_t begin;
  size_t end;
};

std::optional<AuthorityBounds> FindAuthority(std::string_view text) {
  const size_t scheme = text.find(kSchemeEnd);
  if (scheme == std::string_view::npos) return std::nullopt;
  const size_t begin = scheme + kSchemeEnd.size();
  return AuthorityBounds{begin, std::min(text.find_first_of("/?#", begin), text.size())};
}

// The parts as written.
void TakeText(const std::string& text, const AuthorityBounds& bounds, Url* url) {
  url->authority = text.substr(bounds.begin, bounds.end - bounds.begin);
  if (const size_t at = url->authority.rfind('@'); at != std::string::npos) {
    url->has_user = true;
    url->authority.erase(0, at + 1);
  }
  const size_t fragment = std::min(text.find('#', bounds.end), text.size());
  const size_t query = std::min(text.find('?', bounds.end), fragment);
  url->path = text.substr(bounds.end, query - bounds.end);
  url->query = text.substr(query, fragment - query);
  url->fragment = text.substr(fragment);
}

}  // namespace

std::string Url::CanonicalAuthority() const {
  return has_default_port || port.empty() ? host : host + ":" + port;
}

std::optional<Url> ParseUrl(const std::string& text) {
  const std::optional<AuthorityBounds> bounds = FindAuthority(text);
  Parser parser;
  if (!bounds || text.find('\0') != std::string::npos || !parser.Parse(text)) return std::nullopt;
  Url url;
  url.scheme = LowerCase(parser.Part(CURLUPART_SCHEME).value_or(""));
  if (url.scheme != UrlScheme(text)) return std::nullopt;
  TakeText(text, *bounds, &url);
  if (url.scheme == "file") return url;
  // libcurl forgives "http:///host" and "http://host:".
  if (url.authority.empty() || url.authority.ends_with(':')) return std::nullopt;
  url.host = LowerCase(parser.Part(CURLUPART_HOST).value_or(""));
  if (const auto zone = parser.Part(CURLUPART_ZONEID); zone && url.host.ends_with(']')) {
    url.host.insert(url.host.size() - 1, "%25" + *zone);
  }
  url.port = parser.Part(CURLUPART_PORT, CURLU_DEFAULT_PORT).value_or("");
  if (url.host.empty() || url.port == "0") return std::nullopt;
  url.has_default_port = !parser.Part(CURLUPART_PORT, CURLU_NO_DEFAULT_PORT);
  url.user = parser.Part(CURLUPART_USER, CURLU_URLDECODE).value_or("");
  url.password = parser.Part(CURLUPART_PASSWORD, CURLU_URLDECODE).value_or("");
  return url;
}

std::string UrlScheme(std::string_view text) {
  const std::string_view scheme = text.substr(0, std::min(text.find(kSchemeEnd), text.size()));
  const auto fits = [](unsigned char c) {
    return std::isalnum(c) ||
           std::string_view("+-.").find(static_cast<char>(c)) != std::string::npos;
  };
  if (scheme.size() == text.size() || !std::all_of(scheme.begin(), scheme.end(), fits)) return "";
  return LowerCase(std::string(scheme));
}

std::string_view AfterScheme(std::string_view text) {
  const size_t scheme = text.find(kSchemeEnd);
  return scheme == std::string_view::npos ? text : text.substr(scheme + kSchemeEnd.size());
}

std::string WithoutUser(std::string_view text) {
  const std::optional<AuthorityBounds> bounds = FindAuthority(text);
  if (!bounds) return std::string(text);
  const std::string_view authority = text.substr(bounds->begin, bounds->end - bounds->begin);
  size_t at = authority.rfind('@');
  // A password may have a '/' that should have been percent-encoded.
  if (at == std::string_view::npos && !authority.empty() &&
      !ParseUrl(std::string(text.substr(0, bounds->end)))) {
    at = AfterScheme(text).rfind('@');
  }
  if (at == std::string_view::npos) return std::string(text);
  return std::string(text.substr(0, bounds->begin)) +
         std::string(text.substr(bounds->begin + at + 1));
}

}  // namespace cachecore
