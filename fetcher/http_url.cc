#include "fetcher/http_url.h"

#include <curl/curl.h>

#include <algorithm>
#include <cctype>
#include <memory>

namespace fetcher {

UrlParts SplitUrl(const std::string& url) {
  UrlParts parts;
  const std::unique_ptr<CURLU, void (*)(CURLU*)> parsed(curl_url(), curl_url_cleanup);
  if (!parsed || curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(),
                              CURLU_NON_SUPPORT_SCHEME | CURLU_PATH_AS_IS) != CURLUE_OK) {
    return parts;
  }
  const auto part = [&parsed](CURLUPart what, unsigned flags) {
    char* text = nullptr;
    if (curl_url_get(parsed.get(), what, &text, flags) != CURLUE_OK) return std::string();
    std::string copy = text;
    curl_free(text);
    return copy;
  };
  const auto lower = [](std::string text) {
    std::transform(text.begin(), text.end(), text.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return text;
  };
  parts.scheme = lower(part(CURLUPART_SCHEME, 0));
  parts.host = lower(part(CURLUPART_HOST, 0));
  parts.port = part(CURLUPART_PORT, CURLU_DEFAULT_PORT);
  parts.user = part(CURLUPART_USER, CURLU_URLDECODE);
  parts.password = part(CURLUPART_PASSWORD, CURLU_URLDECODE);
  return parts;
}

}  // namespace fetcher
