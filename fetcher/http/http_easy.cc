#include "fetcher/http_easy.h"

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>

#include "fetcher/local_files.h"

namespace fetcher {
namespace {

using Kind = Failure::Kind;

constexpr long kReceiveBuffer = 512 << 10;  // The most that libcurl takes.

std::string LowerCase(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

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
  // Should the file not be readable after all, libcurl says so of the path.
  curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file.c_str());
  if (access(ca_file.c_str(), R_OK) == 0) return;
  const std::string text = local.Certificates(ca_file);
  if (!text.empty()) SetBlob(easy, CURLOPT_CAINFO_BLOB, text);
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
  answer.content_type = LowerCase(HeaderOf(easy, "Content-Type"));
  answer.www_authenticate = JoinedHeadersOf(easy, "WWW-Authenticate");
  if (LowerCase(answer.content_encoding) == "identity") answer.content_encoding.clear();
  curl_off_t length = -1;
  curl_easy_getinfo(easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
  if (length >= 0) answer.content_length = static_cast<uint64_t>(length);
  curl_off_t retry_after = 0;
  curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &retry_after);
  answer.retry_after = std::chrono::seconds(std::clamp<curl_off_t>(retry_after, 0, 3600));
  return answer;
}

bool IsCertificateRefusal(CURLcode code, const char* text) {
  if (code == CURLE_SSL_CERTPROBLEM || code == CURLE_SSL_CLIENTCERT) return true;
  // TLS 1.2 refuses in the handshake, 1.3 behind it; OpenSSL's words have the alert in them.
  const bool in_tls =
      code == CURLE_SSL_CONNECT_ERROR || code == CURLE_RECV_ERROR || code == CURLE_SEND_ERROR;
  return in_tls && std::strstr(text, "alert") != nullptr;
}

Failure JudgeCurl(CURL* easy, CURLcode code, const char* text, const std::string& url) {
  const auto fail = [&url](Kind kind, int error, const std::string& what) {
    return Failure{kind, error, url + ": " + what, Duration::zero()};
  };
  long os_error = 0;
  if (code != CURLE_SSL_CERTPROBLEM && IsCertificateRefusal(code, text)) {
    return fail(Kind::kRetry, EPROTO, std::string("TLS: ") + text);
  }
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
      return fail(Kind::kRetry, EHOSTUNREACH, "host not found");
    case CURLE_COULDNT_CONNECT:
      curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &os_error);
      return fail(
          Kind::kRetry, EHOSTUNREACH,
          os_error ? LowerCase(std::strerror(static_cast<int>(os_error))) : "could not connect");
    case CURLE_OPERATION_TIMEDOUT:  // Nothing else has a limit of libcurl's.
      return fail(Kind::kRetry, EHOSTUNREACH, "connecting timed out");
    case CURLE_UNSUPPORTED_PROTOCOL:
      return fail(Kind::kRefused, EIO, "redirected to a protocol that is not allowed");
    case CURLE_SSL_CONNECT_ERROR:
      return fail(Kind::kRetry, EPROTO, std::string("TLS: ") + text);
    case CURLE_SSL_CERTPROBLEM:
      return fail(Kind::kRefused, EACCES,
                  "TLS: the client certificate and its key can't be used: they must be PEM and "
                  "belong together");
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ISSUER_ERROR:
      return fail(Kind::kRefused, EPROTO, std::string("TLS: ") + text);
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
      return fail(Kind::kRetry, EIO, "connection closed early");
    default:
      return fail(Kind::kRetry, EIO, LowerCase(curl_easy_strerror(code)));
  }
}

}  // namespace fetcher
