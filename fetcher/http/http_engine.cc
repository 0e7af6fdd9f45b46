#include "fetcher/http/http_engine.h"

#include <curl/curl.h>
#include <glog/logging.h>

#include <algorithm>
#include <utility>

#include "fetcher/http/http_transfer.h"
#include "fetcher/source/local_files.h"

namespace fetcher {
namespace {

// How often transfers that wait for an authorizer ask it again.
constexpr Duration kAskAgain = std::chrono::seconds(1);
constexpr Duration kLongestWait = std::chrono::hours(1);

}  // namespace

const LocalFiles& FilesOf(const HttpOptions& options) {
  return options.files != nullptr ? *options.files : LocalFiles::Plain();
}

HttpEngine::HttpEngine(const HttpOptions& options)
    : options_(options),
      multi_((curl_global_init(CURL_GLOBAL_DEFAULT), curl_multi_init())),
      sockets_(multi_),
      calls_([this] { Wake(); }) {
  CHECK(multi_ != nullptr) << "libcurl does not start";
  // A connection for each transfer, with HTTP/2 too: where a connection is what is capped, by the
  // origin or by its window, several streams in one are worth no more than one.
  curl_multi_setopt(multi_, CURLMOPT_MAX_CONCURRENT_STREAMS, 1L);
}

HttpEngine::~HttpEngine() {
  calls_.Stop();
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

void HttpEngine::Wake() { sockets_.Wake(); }

void HttpEngine::Wait(std::span<pollfd> others, Duration timeout) {
  const Duration now = cachecore::Clock::Monotonic().Now();
  for (const HttpTransfer* transfer : transfers_) {
    if (transfer->has_refusal()) timeout = Duration::zero();
    if (transfer->is_parked()) timeout = std::min(timeout, kAskAgain);
    if (transfer->HasGathered(Duration::max())) timeout = std::min(timeout, options_.gather_time);
    if (const auto deadline = transfer->Deadline()) {
      timeout = std::clamp(*deadline - now, Duration::zero(), timeout);
    }
  }
  sockets_.Wait(others, std::min(timeout, kLongestWait));
}

void HttpEngine::AdvanceParked() {
  // What a transfer's end calls may destroy others.
  const std::vector<HttpTransfer*> all = transfers_;
  for (HttpTransfer* transfer : all) {
    const auto place = std::find(transfers_.begin(), transfers_.end(), transfer);
    if (place != transfers_.end() && transfer->is_parked()) transfer->Advance();
  }
}

void HttpEngine::EndOverdue() {
  const Duration now = cachecore::Clock::Monotonic().Now();
  const std::vector<HttpTransfer*> all = transfers_;
  for (HttpTransfer* transfer : all) {
    const auto place = std::find(transfers_.begin(), transfers_.end(), transfer);
    if (place != transfers_.end()) transfer->EndIfOverdue(now);
  }
}

bool HttpEngine::ReportEnded() {
  bool any = false;
  int left = 0;
  while (const CURLMsg* message = curl_multi_info_read(multi_, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    HttpTransfer* transfer = nullptr;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
    // OnDone may destroy the transfer, and `message` with it.
    const CURLcode code = message->data.result;
    transfer->OnDone(code);
    any = true;
  }
  return any;
}

void HttpEngine::Run() {
  calls_.Reap();
  AdvanceParked();
  bool served = true;
  while (!ReportEnded() && served) served = sockets_.Serve();
  EndOverdue();
  const Duration due = cachecore::Clock::Monotonic().Now() - options_.gather_time;
  for (HttpTransfer* transfer : transfers_) {
    if (transfer->HasGathered(due)) transfer->StoreGathered();
  }
}

}  // namespace fetcher
