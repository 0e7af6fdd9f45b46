#include "fetcher/http/http_easy.h"

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>

#include "cachecore/base/parse_text.h"
#include "fetcher/source/local_files.h"

namespace fetcher {
namespace {

constexpr long kReceiveBuffer = 512 << 10;  // The most that libcurl takes.

std::string HeaderOf(CURL* easy, const char* name) {
  curl_header* header = nullptr;
  if (curl_easy_header(easy, name, 0, CURLH_HEADER, -1, &header) != CURLHE_OK) return {};
  return header->value;
}

std::string JoinedHeadersOf(CURL* easy, const char* name) {
  std::string joined;
  curl_header* header = nullptr;
  for (size_t i = 0; curl_easy_header(easy, name, i, CURLH_HEADER, -1, &header) == CURLHE_OK; ++i) {
    joined += (joined.empty() ? "" : ", ") + std::string(header->value);
  }
  return joined;
}

}  // namespace

void SetCommonOptions(CURL* easy, Duration connect_timeout) {
  const auto connect_ms = std::chrono::ceil<std::chrono::milliseconds>(connect_timeout).count();
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_2TLS));
  curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, kReceiveBuffer);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(connect_ms));
  // Ending a transfer must not wait for the thread that looks its host up.
  curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
  curl_easy_setopt(easy, CURLOPT_USERAGENT, "holdfast-fetcherd/" HOLDFAST_VERSION);
}

void SetAuthority(CURL* easy, const std::string& ca_file, const LocalFiles& local) {
  if (ca_file.empty()) return;
  // If the file cannot be read after all, libcurl's error names the path.
  curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file.c_str());
  if (access(ca_file.c_str(), R_OK) == 0) return;
  const std::string text = local.Certificates(ca_file);
  if (!text.empty()) SetBlob(easy, CURLOPT_CAINFO_BLOB, text);
}

void SetRoute(CURL* easy, const HttpRoute& route, const std::string& url, const LocalFiles& local) {
  SetAuthority(easy, route.ca_file, local);
  // libcurl believes its default directory of authorities beside any file.
  if (!route.ca_file.empty() && !route.adds_ca) curl_easy_setopt(easy, CURLOPT_CAPATH, nullptr);
  if (!route.verifies_tls) {
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
  }
  // Also when it is none: libcurl's own rules for the environment are others.
  curl_easy_setopt(easy, CURLOPT_PROXY, route.proxy.For(url).c_str());
  curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
}

void SetBlob(CURL* easy, CURLoption option, const std::string& text) {
  curl_blob blob = {const_cast<char*>(text.data()), text.size(), CURL_BLOB_COPY};
  curl_easy_setopt(easy, option, &blob);
}

HttpAnswer AnswerOf(CURL* easy) {
  HttpAnswer answer;
  long status = 0;
  curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
  answer.status = static_cast<int>(status);
  answer.content_range = HeaderOf(easy, "Content-Range");
  answer.etag = HeaderOf(easy, "ETag");
  answer.last_modified = HeaderOf(easy, "Last-Modified");
  answer.date = HeaderOf(easy, "Date");
  answer.content_encoding = HeaderOf(easy, "Content-Encoding");
  answer.content_type = cachecore::LowerCase(HeaderOf(easy, "Content-Type"));
  answer.www_authenticate = JoinedHeadersOf(easy, "WWW-Authenticate");
  if (cachecore::LowerCase(answer.content_encoding) == "identity") answer.content_encoding.clear();
  curl_off_t length = -1;
  curl_easy_getinfo(easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
  if (length >= 0) answer.content_length = static_cast<uint64_t>(length);
  curl_off_t retry_after = 0;
  curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &retry_after);
  answer.retry_after = std::chrono::seconds(std::clamp<curl_off_t>(retry_after, 0, 3600));
  return answer;
}

}  // namespace fetcher
