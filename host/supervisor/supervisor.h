// RunSupervisor: the service manager for machines without systemd, and the keeper of descriptors
// while both daemons are dead.
//
// Model    one thread, one poll loop.  Each service has a datagram socket of its own (so the sender
//          is known by the socket, and its uid by SCM_CREDENTIALS: root's or ours only), a
//          descriptor store and a state (host/supervisor/supervised_service.h).  SIGTERM, SIGINT:
//          end the services, last one first, each before the next, then return 0.  SIGHUP: it and
//          the services open their logs again; a closed terminal ends no mount.  SIGUSR2: has its
//          program exchanged.  With a standby, RunSupervisor may return in another process than the
//          one that called it: in the copy that has taken over.
// Errors   all before the first service starts.  EBUSY: another supervisor holds the run directory,
//          or a process of an earlier one can't be ended.  EINVAL: the options.  EMFILE: too few
//          descriptors allowed. Otherwise the errno of the file that can't be used.
// Threads  takes over its process: signal mask, SIGCHLD, child subreaper, OOM score, locked memory.
// Owns     every child of its process; RUN_DIR/supervise.lock, RUN_DIR/notify/NAME, the pid files
//          and the status file.  Only the lock file, the status file and an empty RUN_DIR/notify
//          stay behind.
// Cost     takes all memory before it starts the first service and none afterwards, but for a
//          copy's when it takes over.
// Crash    killed, its standby goes on with the stores and with the services, which do not notice.
//          Without a standby, or killed together with it, it takes the stores along; the services
//          live on, and the next supervisor goes on with them and has the stores again
//          (host/notify/orphan.h).  A service that died at that moment too finds an empty one.
// See      host/notify/notify_message.h for the protocol, host/supervisor/supervise_status.h for
//          the status file.

#ifndef HOST_SUPERVISOR_SUPERVISOR_H_
#define HOST_SUPERVISOR_SUPERVISOR_H_

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "cachecore/base/status.h"
#include "host/supervisor/restart_backoff.h"
#include "host/supervisor/standby.h"

namespace host {

struct ServiceSpec {
  std::string name;               // Letters, digits, '.', '_' and '-'; at most 64.
  std::vector<std::string> argv;  // A program, not a script: the kernel must show these arguments.
  std::string log_path;  // stdout and stderr are appended; opened again at each process's start.
  std::string pid_path;
  uid_t uid = 0;            // Its notifications count, beside root's and our own.
  bool brings = false;      // Whether it is given what the environment says of the network.
  size_t fd_store_max = 0;  // At most kFdStoreMax.
  // What is in the store before the first start: names, and descriptors that the caller owns.
  std::vector<std::pair<std::string, int>> stored_fds;
  // Whether the service is starting until it says READY=1, or ready as soon as it runs.
  bool required_ready = false;
  // Whether to keep a spare (host/supervisor/spare.h): the program must know how to be one.
  bool keep_spare = false;
  // The longest silence between two WATCHDOG=1 of a ready service; 0: no watchdog.
  std::chrono::milliseconds watchdog{0};
};

// A descriptor in the store of a service, which the supervisor owns.
struct StoredBy {
  std::string service;
  std::string name;
  int fd = -1;
};

inline constexpr size_t kServicesMax = 8;
// All names in one environment string, of which the kernel takes 128 KiB.
inline constexpr size_t kFdStoreMax = 500;

struct SupervisorOptions {
  std::string run_dir;  // Made when its parent exists.
  std::string status_path;
  // Where the next supervisor finds what this one has counted, once the status file is gone; "":
  // nowhere.
  std::string totals_path;
  std::string log_path;  // What stderr is appended to; "": it is not the supervisor's log.
  uint64_t log_bytes_max = uint64_t{8} << 20;  // Of each log; as much again is kept of the past.
  std::vector<ServiceSpec> services;           // Started in this order, ended in the reverse one.
  RestartPolicy restart;
  // A starting service silent for so long counts as hung (WATCHDOG=1 counts as a sound); 0: never.
  std::chrono::milliseconds ready_timeout{90000};
  std::chrono::milliseconds stop_grace{10000};  // From SIGTERM, or STOPPING=1, to SIGKILL.
  std::chrono::milliseconds abort_grace{1000};  // From a hung service's SIGABRT to SIGKILL.
  // From a service's being ready to the start of its spare: what waited is answered first.
  std::chrono::milliseconds spare_delay{200};
  // From the handing over to the spare's first message; one that takes longer is ended.
  std::chrono::milliseconds spare_patience{1000};
  // Within which a process that has lost its supervisor has listed what it stored.
  std::chrono::milliseconds list_time{10000};
  // Whether a copy of the supervisor waits for its death.  What has it end with its parent
  // (PR_SET_PDEATHSIG) does not end the copy.
  bool keep_standby = false;
  const char* why_no_standby = "it was not asked for";  // Otherwise; for people, at most 80 bytes.
  StandbyHooks standby;
  // Called on SIGUSR2, without a standby: runs another program in this process, which finds what is
  // listed.  Returns when that fails.  Null: SIGUSR2 does nothing.  Where another program could not
  // go on with a service, nothing is ended, and it is not called.
  std::function<cachecore::Status(const std::vector<StoredBy>& stored)> on_exchange;
  // Called once, before the first service is started: what is left of earlier lives goes on.
  std::function<void()> on_start;
  // Called once, when `signal` has told the supervisor to stop, before anything is ended.
  std::function<void(int signal)> on_stop;
};

// Runs until SIGTERM or SIGINT; returns the exit code.
cachecore::Result<int> RunSupervisor(const SupervisorOptions& options);

}  // namespace host

#endif  // HOST_SUPERVISOR_SUPERVISOR_H_
