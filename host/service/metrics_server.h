// MetricsServer: GET /metrics over HTTP, on a socket that others may misuse.
//
// Model    a server by libmicrohttpd with a thread of its own.  Each connection is for one request.
//          A client has ten seconds for its request and the answer, and 16 clients are served at a
//          time.  Answers within a fifth of a second are the same text.
// Errors   Start: what libmicrohttpd refuses.  Another path is 404, another method 405.
// Threads  thread-safe.
// Owns     the listening socket, and the connections.
// Cost     nothing without clients.
// See      docs/metrics.md; docs/design.md, "Metrics".

#ifndef HOST_SERVICE_METRICS_SERVER_H_
#define HOST_SERVICE_METRICS_SERVER_H_

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "cachecore/base/clock.h"
#include "cachecore/base/mutex.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"

struct MHD_Daemon;
struct MHD_Connection;

namespace host {

// What is told to everyone who asks within a short time.
class MetricsSource {
 public:
  explicit MetricsSource(std::function<std::string()> gather) : gather_(std::move(gather)) {}
  std::string Text() EXCLUDES(text_mu_);

 private:
  const std::function<std::string()> gather_;
  cachecore::Mutex text_mu_;  // Held while the text is made.
  std::string text_ GUARDED_BY(text_mu_);
  cachecore::Duration made_ GUARDED_BY(text_mu_) = cachecore::Duration::min() / 2;
};

class MetricsServer {
 public:
  // `source` outlives it.
  static cachecore::Result<std::unique_ptr<MetricsServer>> Start(cachecore::UniqueFd listener,
                                                                 MetricsSource* source);
  ~MetricsServer();
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;

  // Ends the connections whose time is up.  From time to time.
  void EndOverdue() EXCLUDES(mu_);

  // Called by libmicrohttpd.
  int Answer(MHD_Connection* connection, const std::string& path, const std::string& method);
  void Opened(MHD_Connection* connection, int socket) EXCLUDES(mu_);
  void Closed(MHD_Connection* connection) EXCLUDES(mu_);

 private:
  struct Client {
    int socket;  // The connection's own.
    cachecore::Duration since;
  };

  explicit MetricsServer(MetricsSource* source) : source_(source) {}

  MetricsSource* const source_;
  MHD_Daemon* daemon_ = nullptr;
  cachecore::Mutex mu_;
  std::map<MHD_Connection*, Client> clients_ GUARDED_BY(mu_);
};

}  // namespace host

#endif  // HOST_SERVICE_METRICS_SERVER_H_
