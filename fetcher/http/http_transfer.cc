#include "fetcher/http/http_transfer.h"

#include <glog/logging.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>

#include "cachecore/url/url.h"
#include "fetcher/http/http_easy.h"
#include "fetcher/http/http_range.h"
#include "fetcher/http/http_trouble.h"
#include "fetcher/source/source_config.h"

namespace fetcher {
namespace {

using cachecore::ParseUrl;
using cachecore::Url;
using Kind = Failure::Kind;

// Bodies that are not used are read to their end up to this size, which keeps the connection.
constexpr uint64_t kMaxDrain = 64 << 10;
// What is kept of an error's body, for the explanation of the error.
constexpr size_t kMaxErrorBody = 4 << 10;

bool IsRedirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

std::string Seconds(Duration time) {
  return std::to_string(std::chrono::ceil<std::chrono::seconds>(time).count()) + " s";
}

// Without the rest of the URL, where signatures are.
std::string PlaceOf(const std::string& url) {
  const std::optional<Url> parsed = ParseUrl(url);
  return parsed ? parsed->Place() : cachecore::UrlScheme(url) + "://";
}

bool IsSuccess(int status) { return (status >= 200 && status < 300) || status == 416; }

}  // namespace

std::string HttpSite::Url(const std::string& key) const {
  return base_url + (encode_key == nullptr ? key : encode_key(key)) + query;
}

std::string HttpSite::ShownUrl(const std::string& key) const {
  return ShortUrl(RedactUrl((shown_base_url.empty() ? base_url : shown_base_url) + key));
}

HttpTransfer::HttpTransfer(HttpEngine* engine, const HttpSite& site, const std::string& key,
                           ByteRange range, const Pin& pin, bool afresh)
    : engine_(engine),
      site_(site),
      shown_url_(site.ShownUrl(key)),
      range_(FormatRange(range)),
      if_range_(IfRangeValue(pin)),
      afresh_(afresh),
      easy_(engine->TakeEasy()),
      home_url_(site.Url(key)),
      url_(home_url_),
      watch_(engine->options().low_speed_limit, engine->options().low_speed_time) {
  engine->transfers_.push_back(this);
  Start();
}

HttpTransfer::~HttpTransfer() {
  Stop();
  engine_->ReturnEasy(easy_);
  curl_slist_free_all(headers_);
  std::erase(engine_->transfers_, this);
}

void HttpTransfer::Start() {
  granted_ = {};
  refused_ = false;
  parked_ = true;
  if (site_.authorizer && is_home_) {
    auto authorization = site_.authorizer->Authorize();
    if (std::holds_alternative<HttpAuthorizer::NotYet>(authorization)) return;
    if (auto* failure = std::get_if<Failure>(&authorization)) {
      failure->cause = shown_url_ + ": " + failure->cause;
      refusal_ = std::move(*failure);
      return;
    }
    granted_ = std::get<HttpAuthorizer::Granted>(std::move(authorization));
  }
  drained_ = 0;
  error_body_.clear();
  error_text_[0] = '\0';
  const Duration now = cachecore::Clock::Monotonic().Now();
  connect_limit_ = site_.patience->connect.Get(now);
  watch_.Begin(site_.patience->first_byte.Get(now));
  curl_easy_reset(easy_);
  SetUp();
  CHECK_EQ(curl_multi_add_handle(engine_->multi_, easy_), CURLM_OK);
  running_ = true;
  parked_ = false;
}

void HttpTransfer::StartAnew() {
  url_ = home_url_;
  is_home_ = true;
  redirects_ = 0;
  asked_again_ = false;
  Start();
}

void HttpTransfer::AskFor(ByteRange range) {
  range_ = FormatRange(range);
  StartAnew();
}

void HttpTransfer::AskForHeaders() {
  range_.clear();
  StartAnew();
}

bool HttpTransfer::AskWithoutIfRange() {
  if (if_range_.empty()) return false;
  if_range_.clear();
  StartAnew();
  return true;
}

void HttpTransfer::Stop() {
  if (running_) CHECK_EQ(curl_multi_remove_handle(engine_->multi_, easy_), CURLM_OK);
  running_ = false;
}

void HttpTransfer::SetUp() {
  const std::optional<cachecore::Url> url = ParseUrl(url_);
  host_ = url ? url->CanonicalAuthority() : "other";
  SetCommonOptions(easy_, connect_limit_);
  curl_easy_setopt(easy_, CURLOPT_URL, url_.c_str());
  curl_easy_setopt(easy_, CURLOPT_PRIVATE, this);
  curl_easy_setopt(easy_, CURLOPT_ERRORBUFFER, error_text_);
  curl_easy_setopt(easy_, CURLOPT_WRITEFUNCTION, &WriteCallback);
  curl_easy_setopt(easy_, CURLOPT_WRITEDATA, this);
  if (range_.empty()) {
    curl_easy_setopt(easy_, CURLOPT_NOBODY, 1L);
  } else {
    curl_easy_setopt(easy_, CURLOPT_RANGE, range_.c_str());
  }
  if (afresh_) curl_easy_setopt(easy_, CURLOPT_FRESH_CONNECT, 1L);
  SetRoute(easy_, site_.route, url_, engine_->files());
  if (is_home_) SetCredentials();
  SetHeaders();
}

void HttpTransfer::SetCredentials() {
  // The URL's own, which a redirect within the site does not repeat.
  const Url base = ParseUrl(site_.base_url).value_or(Url());
  if (!base.user.empty() || !base.password.empty()) {
    curl_easy_setopt(easy_, CURLOPT_USERNAME, base.user.c_str());
    curl_easy_setopt(easy_, CURLOPT_PASSWORD, base.password.c_str());
  }
  if (!granted_.credentials) return;
  const HttpCredentials& credentials = *granted_.credentials;
  if (!credentials.user.empty() || !credentials.password.empty()) {
    curl_easy_setopt(easy_, CURLOPT_USERNAME, credentials.user.c_str());
    curl_easy_setopt(easy_, CURLOPT_PASSWORD, credentials.password.c_str());
  }
  if (!credentials.sigv4.empty()) {
    curl_easy_setopt(easy_, CURLOPT_AWS_SIGV4, credentials.sigv4.c_str());
  }
  if (!credentials.client_cert.empty()) {
    SetBlob(easy_, CURLOPT_SSLCERT_BLOB, credentials.client_cert);
    SetBlob(easy_, CURLOPT_SSLKEY_BLOB, credentials.client_key);
  }
}

void HttpTransfer::SetHeaders() {
  curl_slist_free_all(headers_);
  headers_ = nullptr;
  const auto add = [this](const std::string& line) {
    headers_ = curl_slist_append(headers_, line.c_str());
  };
  if (!if_range_.empty()) add("If-Range: " + if_range_);
  // A range of an encoded object is no range of the object.
  add("Accept-Encoding: identity");
  if (afresh_) add("Cache-Control: no-cache");
  if (granted_.credentials) {
    for (const std::string& line : granted_.credentials->headers) add(line);
  }
  curl_easy_setopt(easy_, CURLOPT_HTTPHEADER, headers_);
}

int HttpTransfer::status() const {
  long status = 0;
  curl_easy_getinfo(easy_, CURLINFO_RESPONSE_CODE, &status);
  return static_cast<int>(status);
}

HttpAnswer HttpTransfer::answer() const {
  HttpAnswer answer = AnswerOf(easy_);
  answer.error_body = error_body_;
  return answer;
}

size_t HttpTransfer::WriteCallback(char* data, size_t, size_t size, void* self) {
  return static_cast<HttpTransfer*>(self)->TakeBody(data, size) ? size : CURL_WRITEFUNC_ERROR;
}

bool HttpTransfer::TakeBody(const char* data, size_t size) {
  const Duration now = cachecore::Clock::Monotonic().Now();
  const bool is_first = !watch_.first_byte_took();
  watch_.Bytes(now, size);
  if (is_first) site_.patience->first_byte.Came(now, *watch_.first_byte_took());
  const int code = status();
  if (code == 200 || code == 206) {
    engine_->tally()->Bytes(host_, size);
    return OnBody(data, size);
  }
  error_body_.append(data, std::min(size, kMaxErrorBody - error_body_.size()));
  return Drain(size);
}

bool HttpTransfer::Drain(size_t size) { return (drained_ += size) <= kMaxDrain; }

void HttpTransfer::Advance() {
  if (!refusal_) Start();
  if (!refusal_) return;
  parked_ = false;
  Finish(std::move(refusal_));
}

void HttpTransfer::OnDone(CURLcode code) {
  Stop();
  engine_->tally()->Answer(host_, status());
  // A body given up as too long or as not wanted is an answer all the same.
  if (code != CURLE_OK && code != CURLE_WRITE_ERROR) {
    Failure failure = JudgeError(code);
    const bool with_certificate =
        granted_.credentials && !granted_.credentials->client_cert.empty();
    if (with_certificate && IsCertificateRefusal(code, error_text_)) {
      failure.kind = Kind::kRefused;
      failure.error = EACCES;
      failure.cause += " (with the client certificate)";
      if (AskAgain({}, failure)) return;
    }
    return Finish(std::move(failure));
  }
  const int code_of_answer = status();
  if (IsSuccess(code_of_answer) || IsRedirect(code_of_answer)) {
    if (granted_.credentials) site_.authorizer->OnAccepted(granted_.serial);
    if (!IsRedirect(code_of_answer) || !Redirect()) Finish(std::move(refusal_));
  } else if (!HandleRefusal()) {
    Finish(std::nullopt);
  }
}

Failure HttpTransfer::JudgeError(CURLcode code) {
  Failure failure = JudgeCurl(easy_, code, error_text_, shown_url_);
  failure.reason = failure.error == EPROTO ? "tls" : "connection";
  if (code == CURLE_OPERATION_TIMEDOUT) {  // The only time limit that libcurl has.
    site_.patience->connect.TimedOut(cachecore::Clock::Monotonic().Now(), connect_limit_);
    failure.cause += " (" + Seconds(connect_limit_) + ")" + CureOfTimeout(easy_);
  }
  failure.cause += Way();
  return failure;
}

std::string HttpTransfer::Way() const {
  std::string way;
  if (url_ != home_url_) way = " (redirected to " + PlaceOf(url_) + ")";
  return way + ThroughProxy(site_.route.proxy.For(url_));
}

std::optional<Duration> HttpTransfer::Deadline() const {
  return running_ ? watch_.Deadline() : std::nullopt;
}

void HttpTransfer::EndIfOverdue(Duration now) {
  if (!running_) return;
  curl_off_t sent_us = 0;
  curl_easy_getinfo(easy_, CURLINFO_PRETRANSFER_TIME_T, &sent_us);
  if (sent_us > 0) watch_.Sent(now);
  const TransferWatch::Verdict verdict = watch_.Judge(now);
  if (verdict == TransferWatch::Verdict::kFine) return;
  Stop();
  engine_->tally()->Answer(host_, status());
  if (verdict == TransferWatch::Verdict::kNoAnswer) {
    const Duration limit = watch_.first_byte_limit();
    site_.patience->first_byte.TimedOut(now, limit);
    Failure failure = Fail(Kind::kRetry, EIO, "no answer within " + Seconds(limit) + Way());
    failure.reason = "no_answer";
    return Finish(std::move(failure));
  }
  Failure failure = Fail(Kind::kRetry, EIO,
                         "stalled (under " + std::to_string(engine_->options().low_speed_limit) +
                             " bytes a second)" + Way());
  failure.reason = "stalled";
  Finish(std::move(failure));
}

Failure HttpTransfer::Fail(Kind kind, int error, const std::string& what) const {
  return {kind, error, shown_url_ + ": " + what, Duration::zero()};
}

bool HttpTransfer::Redirect() {
  char* target = nullptr;
  curl_easy_getinfo(easy_, CURLINFO_REDIRECT_URL, &target);
  if (target == nullptr) return false;
  const int most = engine_->options().max_redirects;
  if (++redirects_ > most) {
    refusal_ = Fail(Kind::kRefused, EIO,
                    "more than " + std::to_string(most) +
                        " redirects (ELOOP); mount the URL that they should lead to" + Way());
    return false;
  }
  const std::string url = target;  // The handle's, which is reset.
  const Url base = ParseUrl(site_.base_url).value_or(Url());
  const Url next = ParseUrl(url).value_or(Url());
  // A redirect may not take a request from TLS to the open.
  if (next.scheme != "https" && (next.scheme != "http" || base.scheme == "https")) {
    refusal_ = Fail(Kind::kRefused, EIO,
                    "redirected to a protocol that is not allowed (" + PlaceOf(url) +
                        "); mount the URL that it should lead to");
    return false;
  }
  url_ = url;
  is_home_ = base.IsSamePlace(next);
  Start();
  return true;
}

bool HttpTransfer::HandleRefusal() {
  if (!granted_.credentials) return false;
  const HttpAnswer judged = answer();
  if (!site_.authorizer->IsRefusal(judged)) {
    site_.authorizer->OnAccepted(granted_.serial);
    return false;
  }
  return AskAgain(judged, Explain(Fail(Kind::kRetry, EACCES, DescribeHttpStatus(judged.status))));
}

bool HttpTransfer::AskAgain(const HttpAnswer& answer, Failure failure) {
  refused_ = true;
  const std::string prefix = shown_url_ + ": ";
  if (failure.cause.starts_with(prefix)) failure.cause.erase(0, prefix.size());
  site_.authorizer->OnRefused(granted_.serial, answer, failure);
  if (std::exchange(asked_again_, true)) return false;
  Start();
  return true;
}

Failure HttpTransfer::Explain(Failure failure) const {
  if (failure.kind == Kind::kChanged) return failure;  // The same words mean the same change.
  const HttpAnswer judged = answer();
  if (site_.authorizer && is_home_) {
    failure = site_.authorizer->Explain(judged, std::move(failure));
  } else if (site_.authorizer && failure.error == EACCES) {
    failure.cause += " (by another host that it redirects to, where no credentials are sent)";
  } else {
    failure.cause += CureOf(judged, shown_url_, !site_.query.empty());
  }
  failure.cause += Way();
  return failure;
}

}  // namespace fetcher
