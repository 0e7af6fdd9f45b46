// Spare: a second process of a service, started ahead of need, that takes over when the first dies.
//
// Model    the spare has loaded its program and holds nothing but a socket, which it finds as the
//          stored descriptor named "spare".  It is fit once it has sent a byte there: it is loaded,
//          and a program that knows of spares.  HandOver sends it, in one packet, the names of what
//          the service had stored (':'-joined) and the descriptors; from then on it is the service.
//          A spare whose program file is no longer the one that it was started from is not used,
//          nor is one after a service that ended by itself, as for an upgrade: see Discard.
// Errors   none aloud: without a spare that is fit the service is started anew.
// Threads  one thread only.
// Owns     the spare's process until it is handed over, our end of the socket, and its launcher.
// Cost     all memory is taken by Create; the process is as large as a service without work.
// Crash    the supervisor's end ends the socket, and an idle spare with it.
// See      fusefs/fd_store.h, the other side.

#ifndef CLI_SPARE_H_
#define CLI_SPARE_H_

#include <sys/stat.h>
#include <sys/types.h>

#include <memory>
#include <optional>
#include <vector>

#include "cachecore/clock.h"
#include "cachecore/status.h"
#include "cachecore/unique_fd.h"
#include "cli/child_process.h"
#include "cli/fd_store.h"
#include "cli/restart_backoff.h"

namespace cli {

class Spare {
 public:
  // `launch`: of the service, whose pid file is not the spare's.  `first_fd`: as FdStore::Create.
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
  // Makes it the service.  False when it could not be reached: it is gone or about to be.
  // REQUIRES: Fit().
  bool HandOver(const FdStore& store);
  // Ends what there is and wants no other.
  void Discard();
  // A child of ours has ended: was it this one?
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
  std::unique_ptr<FdStore> passed_;  // The spare's end of the socket, for the time of its start.
  cachecore::UniqueFd socket_;       // Invalid: the process, if there is one, is being ended.
  pid_t pid_ = 0;
  struct stat program_ = {};  // The file it was started from.
  cachecore::Duration started_at_{0};
  cachecore::Duration deadline_ = cachecore::Duration::max();
  bool wanted_ = false;
  bool warm_ = false;
  std::vector<char> names_;
  std::vector<char> ancillary_;
};

}  // namespace cli

#endif  // CLI_SPARE_H_
