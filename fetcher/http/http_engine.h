// HttpEngine: the event loop's wait, and libcurl for all HTTP origins.
//
// Threads  the event loop's, but for Wake, which any thread may call.
// Owns     connections and easy handles, and the threads of calls that may block.
// Cost     HttpEngine::kGather bytes of memory per transfer under way, kept for the next.

#ifndef FETCHER_HTTP_HTTP_ENGINE_H_
#define FETCHER_HTTP_HTTP_ENGINE_H_

#include <poll.h>

#include <memory>
#include <span>
#include <vector>

#include "cachecore/base/clock.h"
#include "fetcher/http/http_sockets.h"
#include "fetcher/transfer/blocking_calls.h"
#include "fetcher/transfer/fetch_tally.h"

namespace fetcher {

using cachecore::Duration;

class HttpTransfer;
class LocalFiles;

struct HttpOptions {
  // Bytes a second; slower for low_speed_time, once they flow, is a stall.
  uint64_t low_speed_limit = 1024;
  Duration low_speed_time = std::chrono::seconds(10);
  // Of the first try; further ones get longer (http_patience.h).
  Duration connect_timeout = std::chrono::seconds(10);
  Duration first_byte_timeout = std::chrono::seconds(10);
  int max_redirects = 5;
  // How long a slow origin's bytes may lie in memory: a reader may wait for the first of them, and
  // those that have not been declared when the process dies are fetched again.
  Duration gather_time = std::chrono::milliseconds(5);
  // Certificates and secrets; null: LocalFiles::Plain.  Outlives the engine.
  const LocalFiles* files = nullptr;
};

const LocalFiles& FilesOf(const HttpOptions& options);

class HttpEngine {
 public:
  static constexpr uint64_t kGather = 256 << 10;

  explicit HttpEngine(const HttpOptions& options);
  ~HttpEngine();
  HttpEngine(const HttpEngine&) = delete;
  HttpEngine& operator=(const HttpEngine&) = delete;

  // Waits for the network, for `others` (whose revents it sets), for Wake, or for `timeout`.
  void Wait(std::span<pollfd> others, Duration timeout);
  // Moves transfers on, the oldest first, until one has ended or nothing more has come.
  void Run();
  // Ends Wait, once.
  void Wake();

  const HttpOptions& options() const { return options_; }
  const LocalFiles& files() const { return FilesOf(options_); }
  // For what authorizers do; each return wakes the loop.
  BlockingCalls* calls() { return &calls_; }
  // What transfers count.
  FetchTally* tally() { return &tally_; }

 private:
  friend class HttpTransfer;
  void* TakeEasy();
  void ReturnEasy(void* easy);
  std::unique_ptr<char[]> TakeBuffer();
  void ReturnBuffer(std::unique_ptr<char[]> buffer);
  // Asks the authorizers of those that wait for one.
  void AdvanceParked();
  void EndOverdue();
  // Of the transfers that libcurl has finished; false for none.
  bool ReportEnded();

  const HttpOptions options_;
  void* const multi_;  // CURLM
  HttpSockets sockets_;
  std::vector<HttpTransfer*> transfers_;  // All that there are.
  std::vector<void*> idle_easies_;
  std::vector<std::unique_ptr<char[]>> idle_buffers_;
  BlockingCalls calls_;
  FetchTally tally_;
};

}  // namespace fetcher

#endif  // FETCHER_HTTP_HTTP_ENGINE_H_
