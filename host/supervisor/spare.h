// Spare: a second process of a service, started ahead of need, that takes over when the first dies.
//
// Model    the spare has loaded its program and holds nothing but a socket, which it finds as the
//          stored descriptor named "spare".  It is fit once it has sent a byte there: it is loaded,
//          and a program that knows of spares.  HandOver sends it, in one packet, the names of what
//          the service had stored (':'-joined) and the descriptors; from then on it is the service.
//          A spare whose program file is no longer the one that it was started from is not used,
//          nor is one after a service that ended by itself, as for an upgrade: see Stop.
// Errors   not reported: without a fit spare the service is started from its program.
// Threads  one thread only.
// Owns     the spare's process until it is handed over, our end of the socket, and its launcher.
// Cost     all memory is taken by Create; the process is as large as a service without work.
// Crash    the supervisor's end ends the socket, and an idle spare with it.
// See      fusefs/service/fd_store.h, the other side.

#ifndef HOST_SUPERVISOR_SPARE_H_
#define HOST_SUPERVISOR_SPARE_H_

#include <sys/stat.h>
#include <sys/types.h>

#include <memory>
#include <optional>
#include <vector>

#include "cachecore/base/clock.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "host/notify/stored_descriptors.h"
#include "host/supervisor/child_process.h"
#include "host/supervisor/restart_backoff.h"

namespace host {

class Spare {
 public:
  // `launch`: of the service, whose pid file is not the spare's.  `first_fd`: as
  // StoredDescriptors::Create.
  static cachecore::Result<std::unique_ptr<Spare>> Create(LaunchSpec launch, int first_fd,
                                                          const RestartPolicy& restart);

  // Has one started at that time, if there is none then.
  void WantAt(cachecore::Duration time);
  // When OnDeadline has something to do.
  cachecore::Duration deadline() const { return deadline_; }
  void OnDeadline();

  // Readable when OnInput has something to do; -1 for never.
  int poll_fd() const { return warm_ ? -1 : socket_.get(); }
  // True when the spare has become fit.
  bool OnInput();

  // The process to become the service now, or 0.
  pid_t Fit();
  // Makes it the service.  False when it could not be reached: it has ended or is about to end.
  // REQUIRES: Fit().
  bool HandOver(const StoredDescriptors& store);
  // Ends what there is and wants no other.
  void Stop();
  // In a copy of the supervisor: forgets the process.  An idle spare ends by itself once no copy
  // has our end of the socket; one that was handed over is the service.
  void Abandon();
  // A child process has ended.  Returns whether it was the spare.
  bool OnExit(pid_t pid);

  // 0 when none runs.
  pid_t pid() const { return pid_; }
  // 0 when none is fit.
  pid_t warm_pid() const { return warm_ ? pid_ : 0; }

 private:
  Spare(const RestartPolicy& restart) : backoff_(restart) {}
  void Kill();

  RestartBackoff backoff_;
  std::unique_ptr<ChildLauncher> launcher_;
  std::unique_ptr<StoredDescriptors>
      passed_;                  // The spare's end of the socket, for the time of its start.
  cachecore::UniqueFd socket_;  // Invalid: the process, if there is one, is being ended.
  pid_t pid_ = 0;
  struct stat program_ = {};  // The file it was started from.
  cachecore::Duration started_at_{0};
  cachecore::Duration deadline_ = cachecore::Duration::max();
  bool wanted_ = false;
  bool warm_ = false;
  std::vector<char> names_;
  size_t fds_max_ = 0;
};

}  // namespace host

#endif  // HOST_SUPERVISOR_SPARE_H_
