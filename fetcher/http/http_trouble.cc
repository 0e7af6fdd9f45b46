#include "fetcher/http/http_trouble.h"

#include <openssl/x509_vfy.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <initializer_list>

#include "cachecore/base/parse_text.h"
#include "cachecore/url/proxy_settings.h"

namespace fetcher {
namespace {

using Kind = Failure::Kind;

constexpr char kUseHttp[] = "; if this port serves plain HTTP, use http://";
constexpr char kUseHttps[] = "; if this port serves TLS, use https://";
constexpr char kHeadersTooLarge[] = "its answer's headers are too large";

bool HasAny(const char* text, std::initializer_list<const char*> parts) {
  return std::any_of(parts.begin(), parts.end(),
                     [text](const char* part) { return std::strstr(text, part) != nullptr; });
}

// What can be done about a certificate that is not accepted.
std::string CertificateCure(CURL* easy, const char* text) {
  long result = X509_V_OK;
  curl_easy_getinfo(easy, CURLINFO_SSL_VERIFYRESULT, &result);
  if (result == X509_V_OK) curl_easy_getinfo(easy, CURLINFO_PROXY_SSL_VERIFYRESULT, &result);
  switch (result) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return "; renew the server's certificate, or set this machine's clock";
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return "; set this machine's clock";
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
      return "; name the authority that signed the server's certificate by --ca-file";
    default:
      break;
  }
  // libcurl compares the name itself.
  if (HasAny(text, {"subject name", "host name"})) {
    return "; use the name that the server's certificate is for";
  }
  return "";
}

// A handshake that failed.  What OpenSSL says is all that there is to tell the reasons apart.
Failure JudgeHandshake(const char* text, const std::string& url) {
  const auto fail = [&url, text](Kind kind, int error, const std::string& cure) {
    return Failure{kind, error, url + ": TLS: " + text + cure, Duration::zero()};
  };
  if (HasAny(text, {"wrong version number", "packet length too long", "record layer failure"})) {
    return fail(Kind::kRefused, EPROTO, kUseHttp);
  }
  if (HasAny(text, {"alert internal error"})) return fail(Kind::kRetry, EPROTO, "");
  if (HasAny(text, {"alert certificate required", "alert bad certificate",
                    "alert handshake failure", "alert certificate unknown", "alert unknown ca"})) {
    return fail(Kind::kRefused, EPROTO,
                "; the server may want a client certificate: --client-cert");
  }
  if (HasAny(text, {"unsupported protocol", "alert protocol version", "no protocols available",
                    "alert insufficient security", "no shared cipher"})) {
    return fail(Kind::kRefused, EPROTO,
                "; have the server offer TLS 1.2 or later, which this machine speaks");
  }
  if (HasAny(text, {"alert unrecognized name"})) {
    return fail(Kind::kRefused, EPROTO, "; use the name that the server's certificate is for");
  }
  return fail(Kind::kRetry, EPROTO, "");
}

// A tunnel that a proxy refuses; false if there was none.
bool WasRefusedByProxy(CURL* easy, long* status) {
  curl_easy_getinfo(easy, CURLINFO_HTTP_CONNECTCODE, status);
  return *status >= 300;
}

Failure JudgeTunnel(int status, const std::string& url) {
  HttpAnswer answer;
  answer.status = status;
  Failure failure = JudgeStatus(answer, url);
  failure.cause = url +
                  ": the proxy refuses the connection: " + failure.cause.substr(url.size() + 2) +
                  CureOf(answer, url, false);
  return failure;
}

bool IsConnected(CURL* easy) {
  curl_off_t connected_us = 0;
  curl_easy_getinfo(easy, CURLINFO_CONNECT_TIME_T, &connected_us);
  return connected_us > 0;
}

}  // namespace

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
  long status = 0;
  if (code != CURLE_SSL_CERTPROBLEM && IsCertificateRefusal(code, text)) {
    return JudgeHandshake(text, url);
  }
  if (WasRefusedByProxy(easy, &status)) return JudgeTunnel(static_cast<int>(status), url);
  switch (code) {
    case CURLE_COULDNT_RESOLVE_PROXY:
      return fail(Kind::kRetry, EHOSTUNREACH, "the host of the proxy not found");
    case CURLE_COULDNT_RESOLVE_HOST:
      return fail(Kind::kRetry, EHOSTUNREACH, "host not found");
    case CURLE_COULDNT_CONNECT:
      curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &os_error);
      return fail(Kind::kRetry, EHOSTUNREACH,
                  os_error ? cachecore::LowerCase(std::strerror(static_cast<int>(os_error)))
                           : "could not connect");
    case CURLE_OPERATION_TIMEDOUT:  // Nothing else has a limit of libcurl's.
      return fail(Kind::kRetry, EHOSTUNREACH,
                  IsConnected(easy) ? "the TLS handshake timed out" : "connecting timed out");
    case CURLE_UNSUPPORTED_PROTOCOL:  // Only HTTP is allowed: what came was no HTTP.
    case CURLE_WEIRD_SERVER_REPLY:
      return fail(
          Kind::kRefused, EPROTO,
          std::string("does not answer in HTTP") + (url.starts_with("http:") ? kUseHttps : ""));
    case CURLE_SSL_CONNECT_ERROR:
      return JudgeHandshake(text, url);
    case CURLE_SSL_CERTPROBLEM:
      return fail(Kind::kRefused, EACCES,
                  "TLS: the client certificate and its key can't be used: they must be PEM and "
                  "belong together");
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
      return fail(Kind::kRefused, EPROTO,
                  std::string("TLS: ") + text + CertificateCure(easy, text));
    case CURLE_SSL_CACERT_BADFILE:
      return fail(Kind::kRefused, EPROTO,
                  std::string("TLS: ") + text + "; --ca-file must name a file of PEM certificates");
    case CURLE_SSL_CIPHER:
      return fail(Kind::kRefused, EPROTO, std::string("TLS: ") + text);
    case CURLE_OUT_OF_MEMORY:  // libcurl's word for one header line beyond its limit.
      return fail(Kind::kRetry, EIO, kHeadersTooLarge);
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
      if (std::strstr(text, "Too large response headers") != nullptr) {
        return fail(Kind::kRetry, EIO, kHeadersTooLarge);
      }
      [[fallthrough]];
    case CURLE_SEND_ERROR:
      return fail(Kind::kRetry, EIO, "connection closed early");
    default:
      return fail(Kind::kRetry, EIO, cachecore::LowerCase(curl_easy_strerror(code)));
  }
}

std::string CureOfTimeout(CURL* easy) { return IsConnected(easy) ? kUseHttp : ""; }

std::string CureOf(const HttpAnswer& answer, const std::string& url, bool has_query) {
  const bool is_open = url.starts_with("http:");
  switch (answer.status) {
    case 401:
      return is_open ? "; it wants credentials, which are sent over https only: mount its https:// "
                       "URL with --headers-file"
                     : "; it wants credentials: --headers-file, or --client-cert";
    case 403:
      if (has_query) return "; if the URL's query is a signature, mount with a new one and --renew";
      return is_open ? "; if it wants credentials, mount its https:// URL with --headers-file"
                     : "; if it wants credentials: --headers-file, or --client-cert";
    case 404:
    case 410:
      return "; check the URL";
    case 407:
      return "; HTTP_PROXY or HTTPS_PROXY must have the proxy's user and password, as in "
             "http://USER:PASSWORD@HOST:PORT";
    case 200:
    case 206:
    case 408:
    case 416:
    case 425:
    case 429:
      return "";
    default:
      break;
  }
  if (answer.status < 300) return "; it serves no file there: check the URL";
  if (answer.status == 400 && is_open && answer.error_body.find("HTTPS") != std::string::npos) {
    return "; the port serves TLS: use https://";
  }
  if (answer.status == 400 && answer.error_body.find("SSL certificate") != std::string::npos) {
    return "; it wants a client certificate: --client-cert";
  }
  if (answer.status >= 300 && answer.status < 400) {
    return "; it names no place to go on at: check the URL";
  }
  if (answer.status >= 500 && answer.status != 501 && answer.status != 505) return "";
  return "; the server takes no such request: check the URL, and the server's log";
}

std::string ThroughProxy(const std::string& proxy) {
  return proxy.empty() ? "" : " (through the proxy " + cachecore::ShownProxy(proxy) + ")";
}

}  // namespace fetcher
