// Standby: a copy of the supervisor that goes on in its place when it dies.
//
// Model    Renew forks: the copy has all that the supervisor has at that moment, the descriptors
//          among it, and waits.  The earlier copy is ended afterwards, so that there is one at any
//          time.  When the supervisor is gone, and what it was about to start has become a program
//          or has ended, one copy takes over: Renew returns there with true.  A copy in which
//          nothing has changed since it was made is as good as a new one.
// Errors   not reported: without memory for a copy the earlier one stays, or there is none.
// Threads  one thread only, and no other in the process.
// Owns     the copy's process until it has taken over.
// Cost     a fork; the copy shares the supervisor's memory.
// Crash    several copies may see the supervisor's end: a token in a pipe is taken by one of them,
//          the others end.

#ifndef HOST_SUPERVISOR_STANDBY_H_
#define HOST_SUPERVISOR_STANDBY_H_

#include <sys/types.h>

#include <functional>
#include <memory>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "host/supervisor/restart_backoff.h"

namespace host {

// What else a copy does in its own process.
struct StandbyHooks {
  std::function<void()> on_wait;       // Before it waits.
  std::function<void()> on_take_over;  // First of all.
};

class Standby {
 public:
  static cachecore::Result<std::unique_ptr<Standby>> Create(const RestartPolicy& restart,
                                                            StandbyHooks hooks);

  // True in a copy that has taken over: the processes of its services are not its children.
  bool Renew();
  // Ends the copy for now; returns once it is gone.
  void End();
  // Ends the copy, and no other follows.
  void Stop();
  // A child process has ended.  Returns whether it was the copy.
  bool OnExit(pid_t pid);

  // When a copy that has ended is to be renewed.
  cachecore::Duration deadline() const { return deadline_; }
  // 0 when there is none.
  pid_t pid() const { return pid_; }

 private:
  Standby(const RestartPolicy& restart, StandbyHooks hooks)
      : backoff_(restart), hooks_(std::move(hooks)) {}
  bool MakeToken();
  void WaitForTheEnd(int supervisor);

  RestartBackoff backoff_;
  StandbyHooks hooks_;
  cachecore::UniqueFd token_in_, token_out_;
  cachecore::UniqueFd socket_;  // Its other end is the copy's, which sees our end there.
  pid_t pid_ = 0;
  cachecore::Duration started_at_{0};
  cachecore::Duration deadline_;
  bool wanted_ = true;
};

}  // namespace host

#endif  // HOST_SUPERVISOR_STANDBY_H_
