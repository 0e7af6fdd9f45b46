#include "fetcher/http/http_call.h"

#include <curl/curl.h>

#include <cerrno>
#include <memory>

#include "fetcher/http/http_easy.h"
#include "fetcher/http/http_trouble.h"
#include "fetcher/source/source_config.h"

namespace fetcher {
namespace {

using cachecore::Result;
using cachecore::Status;

constexpr size_t kMaxBody = 1 << 20;

size_t TakeBody(char* data, size_t, size_t size, void* to) {
  auto* body = static_cast<std::string*>(to);
  if (body->size() + size > kMaxBody) return CURL_WRITEFUNC_ERROR;
  body->append(data, size);
  return size;
}

void SetUp(CURL* easy, const HttpCall& call, Duration connect_timeout, char* error_text,
           std::string* body) {
  SetCommonOptions(easy, connect_timeout);
  curl_easy_setopt(easy, CURLOPT_URL, call.url.c_str());
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, error_text);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &TakeBody);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, body);
  if (!call.form.empty()) curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS, call.form.c_str());
  if (!call.user.empty() || !call.password.empty()) {
    curl_easy_setopt(easy, CURLOPT_USERNAME, call.user.c_str());
    curl_easy_setopt(easy, CURLOPT_PASSWORD, call.password.c_str());
  }
  SetRoute(easy, call.route, call.url, *call.local);
  if (call.client_cert.empty()) return;
  SetBlob(easy, CURLOPT_SSLCERT_BLOB, call.client_cert);
  SetBlob(easy, CURLOPT_SSLKEY_BLOB, call.client_key);
}

// libcurl's own blocking call can't be cancelled from outside.
Result<CURLcode> Perform(CURLM* multi, Duration limit, const Cancel& cancel) {
  const auto& clock = cachecore::Clock::Monotonic();
  const Duration deadline = clock.Now() + limit;
  for (int running = 1; running > 0;) {
    curl_multi_perform(multi, &running);
    const Duration left = deadline - clock.Now();
    if (cancel.IsSet()) return Status(ECANCELED, "no longer wanted");
    if (left <= Duration::zero()) return Status(ETIMEDOUT, "no answer in time");
    curl_waitfd other = {cancel.fd(), CURL_WAIT_POLLIN, 0};
    const auto left_ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
    if (running > 0) curl_multi_poll(multi, &other, 1, static_cast<int>(left_ms), nullptr);
  }
  int left = 0;
  const CURLMsg* message = curl_multi_info_read(multi, &left);
  if (message == nullptr) return Status(EIO, "libcurl gave no result");
  return message->data.result;
}

}  // namespace

Result<HttpReply> CallHttp(const HttpCall& call, Duration limit, const Cancel& cancel) {
  const std::unique_ptr<CURLM, CURLMcode (*)(CURLM*)> multi(curl_multi_init(), curl_multi_cleanup);
  const std::unique_ptr<CURL, void (*)(CURL*)> easy(curl_easy_init(), curl_easy_cleanup);
  if (!multi || !easy) return Status(ENOMEM, "libcurl does not start");
  const std::string shown = RedactUrl(call.url);
  char error_text[CURL_ERROR_SIZE] = {};
  HttpReply reply;
  // Perform's limit comes first, whatever it is spent on.
  SetUp(easy.get(), call, 2 * limit, error_text, &reply.body);
  curl_multi_add_handle(multi.get(), easy.get());
  const Result<CURLcode> code = Perform(multi.get(), limit, cancel);
  if (code.ok() && *code == CURLE_OK) reply.answer = AnswerOf(easy.get());
  Status status;
  if (!code.ok()) {
    status = Status(code.status()).WithContext(shown);
  } else if (*code == CURLE_WRITE_ERROR) {
    status = Status(EMSGSIZE, shown + ": the answer is too long");
  } else if (*code != CURLE_OK) {
    const Failure failure = JudgeCurl(easy.get(), *code, error_text, shown);
    status = Status(failure.error, failure.cause + ThroughProxy(call.route.proxy.For(call.url)));
  }
  curl_multi_remove_handle(multi.get(), easy.get());
  if (!status.ok()) return status;
  return reply;
}

std::string UrlEncode(const std::string& text) {
  char* encoded = curl_easy_escape(nullptr, text.data(), static_cast<int>(text.size()));
  std::string result = encoded != nullptr ? encoded : "";
  curl_free(encoded);
  return result;
}

}  // namespace fetcher
