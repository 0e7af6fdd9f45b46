// The supervisor of an instance as a process, and what the processes of an instance are called.
//
// Model    a running supervisor holds a record lock on the first byte of its pid file, and its
//          standby one on the second; a lock names its holder and ends with it, so the pid file of
//          a dead supervisor names no process.  While a standby takes over it counts as the
//          supervisor.
// Errors   EBUSY names the process that supervises already.
// Threads  thread-safe: no state.

#ifndef HOST_INSTANCE_SUPERVISOR_PROCESS_H_
#define HOST_INSTANCE_SUPERVISOR_PROCESS_H_

#include <sys/types.h>

#include <chrono>
#include <utility>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/system/process.h"
#include "host/instance/instance.h"

namespace host {

inline constexpr char kSupervisor[] = "supervise";
inline constexpr char kDaemon[] = "holdfastd";
inline constexpr char kFetcher[] = "fetcherd";  // Its service, log and pid file.
inline constexpr char kFetcherProgram[] = "holdfast-fetcherd";
inline constexpr char kMetricsService[] = "metricsd";
inline constexpr char kMetricsProgram[] = "holdfast-metricsd";

// Holds the pid file until it is closed.
class SupervisorPidFile {
 public:
  // EBUSY when another process supervises the instance.
  static cachecore::Result<SupervisorPidFile> Hold(const Instance& instance);

  // In a standby: waits until no other one holds its place.
  void HoldAsStandby() const;
  // In a standby whose supervisor is dead.
  void TakeOver() const;

 private:
  explicit SupervisorPidFile(cachecore::UniqueFd file) : file_(std::move(file)) {}

  cachecore::UniqueFd file_;
};

// 0 when no supervisor runs.
pid_t SupervisorPid(const Instance& instance);
cachecore::PinnedProcess PinSupervisor(const Instance& instance);
// EBUSY with the cure when a signal or a debugger has stopped the supervisor or its standby: the
// instance serves, but nothing starts again what dies.
cachecore::Status CheckSupervisorRuns(const Instance& instance);
// Has it end by SIGTERM, also if it is stopped, and its standby, should that have taken over
// meanwhile; ETIMEDOUT when they don't end.
cachecore::Status TerminateSupervisor(const Instance& instance, std::chrono::milliseconds timeout);
// Ends it and its standby by SIGKILL; ETIMEDOUT when they don't end.
cachecore::Status KillSupervisor(const Instance& instance, std::chrono::milliseconds timeout);

}  // namespace host

#endif  // HOST_INSTANCE_SUPERVISOR_PROCESS_H_
