// ControlServer: the operator's socket.
//
// Model    a stream socket; a connection carries one request, a line of JSON, and one answer, a
//          line of JSON; then it is closed.  The operations: cachecore/protocol/control_messages.h.
// Errors   answers {"ok":false,"errno":N,"error":"one line"}; a request that is too long, late or
//          not JSON gets EINVAL.  Strangers (not root, not our uid) get EPERM.
// Threads  one that accepts, one a connection, at most kMaxConnections: a call that waits for the
//          fetcher holds its own thread only.
// See      docs/protocol.md "The control socket".

#ifndef FUSEFS_CONTROL_CONTROL_SERVER_H_
#define FUSEFS_CONTROL_CONTROL_SERVER_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "cachecore/base/mutex.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"

namespace fusefs {

class ControlServer {
 public:
  // Gives the answer (a line of JSON without the newline) to a request line.  Called on a thread of
  // the connection's own; may block.  `peer`: the connection, by which the caller's end is noticed.
  using Handler = std::function<std::string(const std::string& request, int peer)>;

  static constexpr int kMaxConnections = 64;

  // `listener`: see ListenUnix.
  static cachecore::Result<std::unique_ptr<ControlServer>> Make(cachecore::UniqueFd listener);
  ~ControlServer();

  void Start(Handler handler);
  void Stop();

 private:
  ControlServer(cachecore::UniqueFd listener, cachecore::UniqueFd wake);
  void Run();
  void Serve(cachecore::UniqueFd socket);
  void Leave() EXCLUDES(mu_);

  const cachecore::UniqueFd listener_;
  const cachecore::UniqueFd wake_;
  Handler handler_;
  std::thread thread_;
  std::atomic<bool> stopping_{false};
  cachecore::Mutex mu_;
  cachecore::CondVar left_;
  int connections_ GUARDED_BY(mu_) = 0;
};

}  // namespace fusefs

#endif  // FUSEFS_CONTROL_CONTROL_SERVER_H_
