// HttpBackend: objects below a URL; HttpEngine: the event loop's wait, and libcurl.
//
// Model    ranges by GET with Range and If-Range over kept connections, HTTP/2 where TLS offers it.
// An
//          answer is held against the request (status, Content-Range, validator) before its first
//          byte is written; then bytes are gathered to kGather, or for gather_time, and written.  A
//          body that ends early keeps what came.  http_backend.cc is the only file that includes
//          curl.
// Errors   see docs/protocol.md "What the fetcher does with an origin's answer".
// Threads  the event loop's.  Writing to a data file may block on its disk.
// Owns     connections and easy handles, for all backends of the engine.
// Cost     one copy socket to buffer, one buffer to page cache; kGather bytes of memory per
// transfer.

#ifndef FETCHER_HTTP_BACKEND_H_
#define FETCHER_HTTP_BACKEND_H_

#include <poll.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fetcher/backend.h"

namespace fetcher {

class HttpTransfer;

struct HttpOptions {
  uint64_t low_speed_limit = 1024;  // Bytes a second; slower for low_speed_time is a stall.
  Duration low_speed_time = std::chrono::seconds(10);
  Duration connect_timeout = std::chrono::seconds(10);
  int max_redirects = 5;
  // How long a slow origin's bytes may lie in memory: a reader may wait for the first of them, and
  // those that have not been declared when we die are fetched again.
  Duration gather_time = std::chrono::milliseconds(5);
};

class HttpEngine {
 public:
  static constexpr uint64_t kGather = 256 << 10;

  explicit HttpEngine(const HttpOptions& options);
  ~HttpEngine();
  HttpEngine(const HttpEngine&) = delete;
  HttpEngine& operator=(const HttpEngine&) = delete;

  // Waits for the network, for `others` (whose revents it sets), or for `timeout`.
  void Wait(std::span<pollfd> others, Duration timeout);
  // Moves every transfer on and ends those that are done.
  void Run();

  const HttpOptions& options() const { return options_; }

 private:
  friend class HttpTransfer;
  void* TakeEasy();
  void ReturnEasy(void* easy);
  std::unique_ptr<char[]> TakeBuffer();
  void ReturnBuffer(std::unique_ptr<char[]> buffer);

  const HttpOptions options_;
  void* const multi_;                     // CURLM
  std::vector<HttpTransfer*> transfers_;  // All that there are.
  std::vector<void*> idle_easies_;
  std::vector<std::unique_ptr<char[]>> idle_buffers_;
};

class HttpBackend : public Backend {
 public:
  struct Config {
    std::string base_url;  // Ends in '/'.
    std::string query;     // "" or "?...", put behind every URL.
    std::string ca_file;   // "" is the system's.
  };
  // `engine` outlives this.
  HttpBackend(Config config, HttpEngine* engine) : config_(std::move(config)), engine_(engine) {}

  std::unique_ptr<Transfer> Probe(const std::string& key, ProbeDone done) override;
  std::unique_ptr<Transfer> Fetch(FetchRequest request, FetchSink* sink) override;
  std::string Describe(const std::string& key) const override;

 private:
  const Config config_;
  HttpEngine* const engine_;
};

}  // namespace fetcher

#endif  // FETCHER_HTTP_BACKEND_H_
