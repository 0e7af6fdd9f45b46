#include "fetcher/http_backend.h"

#include <curl/curl.h>
#include <glog/logging.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <utility>

#include "cachecore/fault_point.h"
#include "fetcher/http_answer.h"
#include "fetcher/http_range.h"
#include "fetcher/source_config.h"

namespace fetcher {
namespace {

using Kind = Failure::Kind;

// Bodies that nobody wants are read to their end up to this size, which keeps the connection.
constexpr uint64_t kMaxDrain = 64 << 10;
constexpr long kReceiveBuffer = 512 << 10;  // The most that libcurl takes.

long Milliseconds(Duration duration) {
  return static_cast<long>(std::chrono::ceil<std::chrono::milliseconds>(duration).count());
}

Duration Now() { return cachecore::Clock::Monotonic().Now(); }

std::string LowerCase(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

std::string HeaderOf(CURL* easy, const char* name) {
  curl_header* header = nullptr;
  if (curl_easy_header(easy, name, 0, CURLH_HEADER, -1, &header) != CURLHE_OK) return {};
  return header->value;
}

HttpAnswer AnswerOf(CURL* easy) {
  HttpAnswer answer;
  long status = 0;
  curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
  answer.status = static_cast<int>(status);
  answer.content_range = HeaderOf(easy, "Content-Range");
  answer.etag = HeaderOf(easy, "ETag");
  answer.last_modified = HeaderOf(easy, "Last-Modified");
  answer.content_encoding = HeaderOf(easy, "Content-Encoding");
  answer.content_type = LowerCase(HeaderOf(easy, "Content-Type"));
  if (answer.content_encoding == "identity") answer.content_encoding.clear();
  curl_off_t length = -1;
  curl_easy_getinfo(easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
  if (length >= 0) answer.content_length = static_cast<uint64_t>(length);
  curl_off_t retry_after = 0;
  curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &retry_after);
  answer.retry_after = std::chrono::seconds(std::clamp<curl_off_t>(retry_after, 0, 3600));
  return answer;
}

}  // namespace

// One GET with a Range, from its start to its end or to its destructor.
class HttpTransfer : public Transfer {
 public:
  HttpTransfer(HttpEngine* engine, const HttpBackend::Config& config, const std::string& key,
               ByteRange range, const Pin& pin);
  ~HttpTransfer() override;
  HttpTransfer(const HttpTransfer&) = delete;
  HttpTransfer& operator=(const HttpTransfer&) = delete;

  // libcurl is done with it.  The callbacks made here may destroy *this.
  virtual void Finish(CURLcode code) = 0;
  // Whether bytes are in memory that came by then.
  virtual bool HasGathered(Duration) const { return false; }
  // Writes what is in memory.
  virtual void StoreGathered() {}

 protected:
  // Takes a piece of body; false ends the transfer.
  virtual bool OnBody(const char* data, size_t size) = 0;

  // What a libcurl error means.
  Failure JudgeCurl(CURLcode code);
  HttpAnswer answer() { return AnswerOf(easy_); }
  // Counts body that nobody wants; false when it is too much.
  bool Drain(size_t size) { return (drained_ += size) <= kMaxDrain; }
  std::unique_ptr<char[]> TakeBuffer() { return engine_->TakeBuffer(); }
  void ReturnBuffer(std::unique_ptr<char[]> buffer) { engine_->ReturnBuffer(std::move(buffer)); }
  const std::string& shown_url() const { return shown_url_; }

 private:
  static size_t WriteCallback(char* data, size_t, size_t size, void* self) {
    return static_cast<HttpTransfer*>(self)->OnBody(data, size) ? size : CURL_WRITEFUNC_ERROR;
  }

  HttpEngine* const engine_;
  const std::string shown_url_;
  CURL* const easy_;
  curl_slist* headers_ = nullptr;
  char error_text_[CURL_ERROR_SIZE] = {};
  uint64_t drained_ = 0;
};

HttpTransfer::HttpTransfer(HttpEngine* engine, const HttpBackend::Config& config,
                           const std::string& key, ByteRange range, const Pin& pin)
    : engine_(engine), shown_url_(RedactUrl(config.base_url + key)), easy_(engine->TakeEasy()) {
  const HttpOptions& options = engine->options();
  const std::string url = config.base_url + key + config.query;
  const bool tls = config.base_url.starts_with("https:");
  curl_easy_setopt(easy_, CURLOPT_URL, url.c_str());
  curl_easy_setopt(easy_, CURLOPT_PRIVATE, this);
  curl_easy_setopt(easy_, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy_, CURLOPT_PATH_AS_IS, 1L);
  curl_easy_setopt(easy_, CURLOPT_PROTOCOLS_STR, "http,https");
  // A redirect may not take a request (and its credentials) from TLS to the open.
  curl_easy_setopt(easy_, CURLOPT_REDIR_PROTOCOLS_STR, tls ? "https" : "http,https");
  curl_easy_setopt(easy_, CURLOPT_FOLLOWLOCATION, 1L);
  curl_easy_setopt(easy_, CURLOPT_MAXREDIRS, static_cast<long>(options.max_redirects));
  curl_easy_setopt(easy_, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_2TLS));
  curl_easy_setopt(easy_, CURLOPT_BUFFERSIZE, kReceiveBuffer);
  curl_easy_setopt(easy_, CURLOPT_CONNECTTIMEOUT_MS, Milliseconds(options.connect_timeout));
  curl_easy_setopt(easy_, CURLOPT_LOW_SPEED_LIMIT, static_cast<long>(options.low_speed_limit));
  curl_easy_setopt(
      easy_, CURLOPT_LOW_SPEED_TIME,
      static_cast<long>(std::chrono::ceil<std::chrono::seconds>(options.low_speed_time).count()));
  curl_easy_setopt(easy_, CURLOPT_USERAGENT, "holdfast-fetcherd/" HOLDFAST_VERSION);
  curl_easy_setopt(easy_, CURLOPT_ERRORBUFFER, error_text_);
  curl_easy_setopt(easy_, CURLOPT_WRITEFUNCTION, &WriteCallback);
  curl_easy_setopt(easy_, CURLOPT_WRITEDATA, this);
  if (!config.ca_file.empty()) curl_easy_setopt(easy_, CURLOPT_CAINFO, config.ca_file.c_str());
  curl_easy_setopt(easy_, CURLOPT_RANGE, FormatRange(range).c_str());
  const std::string if_range = IfRangeValue(pin);
  if (!if_range.empty()) headers_ = curl_slist_append(nullptr, ("If-Range: " + if_range).c_str());
  curl_easy_setopt(easy_, CURLOPT_HTTPHEADER, headers_);
  CHECK_EQ(curl_multi_add_handle(engine->multi_, easy_), CURLM_OK);
  engine->transfers_.push_back(this);
}

HttpTransfer::~HttpTransfer() {
  CHECK_EQ(curl_multi_remove_handle(engine_->multi_, easy_), CURLM_OK);
  engine_->ReturnEasy(easy_);
  curl_slist_free_all(headers_);
  std::erase(engine_->transfers_, this);
}

Failure HttpTransfer::JudgeCurl(CURLcode code) {
  const auto fail = [this](Kind kind, int error, const std::string& what) {
    return Failure{kind, error, shown_url_ + ": " + what, Duration::zero()};
  };
  long os_error = 0;
  curl_off_t connected_us = 0;
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
      return fail(Kind::kRetry, EHOSTUNREACH, "host not found");
    case CURLE_COULDNT_CONNECT:
      curl_easy_getinfo(easy_, CURLINFO_OS_ERRNO, &os_error);
      return fail(
          Kind::kRetry, EHOSTUNREACH,
          os_error ? LowerCase(std::strerror(static_cast<int>(os_error))) : "could not connect");
    case CURLE_OPERATION_TIMEDOUT:
      curl_easy_getinfo(easy_, CURLINFO_PRETRANSFER_TIME_T, &connected_us);
      if (connected_us == 0) return fail(Kind::kRetry, EHOSTUNREACH, "connecting timed out");
      return fail(Kind::kRetry, EIO,
                  "stalled (under " + std::to_string(engine_->options().low_speed_limit) +
                      " bytes a second)");
    case CURLE_TOO_MANY_REDIRECTS:
      return fail(
          Kind::kRefused, EIO,
          "more than " + std::to_string(engine_->options().max_redirects) + " redirects (ELOOP)");
    case CURLE_UNSUPPORTED_PROTOCOL:
      return fail(Kind::kRefused, EIO, "redirected to a protocol that is not allowed");
    case CURLE_SSL_CONNECT_ERROR:
      return fail(Kind::kRetry, EPROTO, std::string("TLS: ") + error_text_);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ISSUER_ERROR:
      return fail(Kind::kRefused, EPROTO, std::string("TLS: ") + error_text_);
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
      return fail(Kind::kRetry, EIO, "connection closed early");
    default:
      return fail(Kind::kRetry, EIO, LowerCase(curl_easy_strerror(code)));
  }
}

namespace {

class HttpProbe : public HttpTransfer {
 public:
  HttpProbe(HttpEngine* engine, const HttpBackend::Config& config, const std::string& key,
            ProbeDone done)
      : HttpTransfer(engine, config, key, {0, 1}, Pin()), done_(std::move(done)) {}

  bool OnBody(const char*, size_t size) override { return Drain(size); }

  void Finish(CURLcode code) override {
    // A body given up as too long does not matter: the headers are all that was wanted.
    const bool answered = code == CURLE_OK || code == CURLE_WRITE_ERROR;
    ProbeResult result =
        answered ? JudgeProbe(answer(), shown_url()) : ProbeResult(JudgeCurl(code));
    const ProbeDone done = std::move(done_);
    done(std::move(result));
  }

 private:
  ProbeDone done_;
};

class HttpFetch : public HttpTransfer {
 public:
  HttpFetch(HttpEngine* engine, const HttpBackend::Config& config, FetchRequest request,
            FetchSink* sink)
      : HttpTransfer(engine, config, request.key, request.range, request.version.pin),
        request_(std::move(request)),
        stored_(request_.range.begin),
        answered_end_(request_.range.end),
        sink_(sink) {}
  ~HttpFetch() override { ReturnBuffer(std::move(buffer_)); }

  bool OnBody(const char* data, size_t size) override;
  void Finish(CURLcode code) override;
  bool HasGathered(Duration by) const override { return gathered_ > 0 && gathered_since_ <= by; }
  // Should it fail, failure_ ends the transfer at its next piece of body.
  void StoreGathered() override { Store(); }

 private:
  void Judge();
  // Writes what is gathered and reports it.
  bool Store();

  const FetchRequest request_;
  uint64_t stored_;      // Everything before this is in the data file.
  size_t gathered_ = 0;  // Bytes in buffer_, which belong at stored_.
  Duration gathered_since_{0};
  uint64_t answered_end_;  // Where the answer ends, by its own word.
  std::unique_ptr<char[]> buffer_;
  FetchSink* const sink_;
  bool judged_ = false;
  bool oversized_ = false;
  std::optional<Failure> failure_;
};

bool HttpFetch::OnBody(const char* data, size_t size) {
  if (!judged_) Judge();
  if (failure_) return failure_->kind != Kind::kLocal && !oversized_ && Drain(size);
  while (size > 0) {
    const uint64_t position = stored_ + gathered_;
    const size_t part =
        std::min<uint64_t>({size, HttpEngine::kGather - gathered_, answered_end_ - position});
    if (part == 0) {
      oversized_ = true;
      failure_ =
          Failure{Kind::kRetry, EIO, shown_url() + ": sent more than it said", Duration::zero()};
      return false;
    }
    if (gathered_ == 0) gathered_since_ = Now();
    std::memcpy(buffer_.get() + gathered_, data, part);
    gathered_ += part;
    data += part;
    size -= part;
    const bool full = gathered_ == HttpEngine::kGather || position + part == answered_end_;
    if (full && !Store()) return false;
  }
  return true;
}

void HttpFetch::Finish(CURLcode code) {
  if (!judged_ && code == CURLE_OK) Judge();
  Store();
  if (!failure_ && code != CURLE_OK) failure_ = JudgeCurl(code);
  if (!failure_ && stored_ < request_.range.end) {
    failure_ = Failure{Kind::kRetry, EIO,
                       shown_url() + ": body ended after " +
                           std::to_string(stored_ - request_.range.begin) + " of " +
                           std::to_string(request_.range.size()) + " bytes",
                       Duration::zero()};
  }
  sink_->OnEnd(std::move(failure_));
}

void HttpFetch::Judge() {
  judged_ = true;
  const HttpAnswer headers = answer();
  failure_ = JudgeFetch(headers, request_.range, request_.version, shown_url());
  if (failure_) return;
  answered_end_ = ParseContentRange(headers.content_range)->range->end;
  buffer_ = TakeBuffer();
}

bool HttpFetch::Store() {
  size_t written = 0;
  while (written < gathered_) {
    const ssize_t done = pwrite(request_.data_fd, buffer_.get() + written, gathered_ - written,
                                static_cast<off_t>(stored_ + written));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) {
      const int error = done < 0 ? errno : ENOSPC;
      failure_ =
          Failure{Kind::kLocal, error,
                  std::string("write to the data file: ") + std::strerror(error), Duration::zero()};
      gathered_ = 0;
      return false;
    }
    written += static_cast<size_t>(done);
  }
  if (gathered_ == 0) return true;
  const ByteRange stored = ByteRange::At(stored_, gathered_);
  stored_ = stored.end;
  gathered_ = 0;
  cachecore::FaultPoint(cachecore::Fault::kBytesStored);
  sink_->OnStored(stored);
  return true;
}

}  // namespace

HttpEngine::HttpEngine(const HttpOptions& options)
    : options_(options), multi_((curl_global_init(CURL_GLOBAL_DEFAULT), curl_multi_init())) {
  CHECK(multi_ != nullptr) << "libcurl does not start";
}

HttpEngine::~HttpEngine() {
  for (CURL* easy : idle_easies_) curl_easy_cleanup(easy);
  curl_multi_cleanup(multi_);
}

void* HttpEngine::TakeEasy() {
  if (idle_easies_.empty()) {
    CURL* easy = curl_easy_init();
    CHECK(easy != nullptr);
    return easy;
  }
  CURL* easy = idle_easies_.back();
  idle_easies_.pop_back();
  curl_easy_reset(easy);
  return easy;
}

void HttpEngine::ReturnEasy(void* easy) { idle_easies_.push_back(easy); }

std::unique_ptr<char[]> HttpEngine::TakeBuffer() {
  if (idle_buffers_.empty()) return std::unique_ptr<char[]>(new char[kGather]);
  std::unique_ptr<char[]> buffer = std::move(idle_buffers_.back());
  idle_buffers_.pop_back();
  return buffer;
}

void HttpEngine::ReturnBuffer(std::unique_ptr<char[]> buffer) {
  if (buffer) idle_buffers_.push_back(std::move(buffer));
}

void HttpEngine::Wait(std::span<pollfd> others, Duration timeout) {
  std::vector<curl_waitfd> fds;
  for (const pollfd& other : others) {
    short events = 0;
    if (other.events & POLLIN) events |= CURL_WAIT_POLLIN;
    if (other.events & POLLOUT) events |= CURL_WAIT_POLLOUT;
    fds.push_back({other.fd, events, 0});
  }
  const auto gathers = [](const HttpTransfer* transfer) {
    return transfer->HasGathered(Duration::max());
  };
  if (std::any_of(transfers_.begin(), transfers_.end(), gathers)) {
    timeout = std::min(timeout, options_.gather_time);
  }
  const int limit_ms = static_cast<int>(std::min(Milliseconds(timeout), 3'600'000L));
  curl_multi_poll(multi_, fds.data(), static_cast<unsigned>(fds.size()), limit_ms, nullptr);
  for (size_t i = 0; i < fds.size(); ++i) {
    others[i].revents = 0;
    if (fds[i].revents & CURL_WAIT_POLLIN) others[i].revents |= POLLIN;
    if (fds[i].revents & CURL_WAIT_POLLOUT) others[i].revents |= POLLOUT;
  }
}

void HttpEngine::Run() {
  int running = 0;
  curl_multi_perform(multi_, &running);
  int left = 0;
  while (const CURLMsg* message = curl_multi_info_read(multi_, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    HttpTransfer* transfer = nullptr;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
    // Finish may destroy the transfer, and `message` with it.
    const CURLcode code = message->data.result;
    transfer->Finish(code);
  }
  const Duration due = Now() - options_.gather_time;
  for (HttpTransfer* transfer : transfers_) {
    if (transfer->HasGathered(due)) transfer->StoreGathered();
  }
}

std::unique_ptr<Transfer> HttpBackend::Probe(const std::string& key, ProbeDone done) {
  return std::make_unique<HttpProbe>(engine_, config_, key, std::move(done));
}

std::unique_ptr<Transfer> HttpBackend::Fetch(FetchRequest request, FetchSink* sink) {
  return std::make_unique<HttpFetch>(engine_, config_, std::move(request), sink);
}

std::string HttpBackend::Describe(const std::string& key) const {
  return RedactUrl(config_.base_url + key);
}

}  // namespace fetcher
