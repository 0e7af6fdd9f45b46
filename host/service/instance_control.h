// Instance control: starting an instance, stopping it, and clearing away what an earlier life left.
//
// Model    running = its control socket answers.  All three need InstanceLock, so of two commands
// that
//          find it stopped one starts it and the other finds it running.
// Errors   every Status names the instance or process; a daemon that dies at its start is quoted
// from
//          its log.
// Threads  thread-safe: no state.
// See      holdfast(1) FILES

#ifndef CLI_INSTANCE_CONTROL_H_
#define CLI_INSTANCE_CONTROL_H_

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cachecore/status.h"
#include "cachecore/unique_fd.h"
#include "cli/deadline.h"
#include "cli/instance.h"
#include "cli/mount_record.h"
#include "cli/process.h"
#include "cli/settings.h"

namespace cli {

// Of the commands that change the instance one holds this at a time: until the result is closed.
// Without a deadline it waits until it has it.
cachecore::Result<cachecore::UniqueFd> LockInstance(
    const Instance& instance, const std::optional<Deadline>& deadline = std::nullopt);

bool AnswersPing(const Instance& instance);
// The supervisor's status file; an empty object without one.
nlohmann::json ReadSuperviseStatus(const Instance& instance);
// Whether `pid` is this instance's daemon or fetcher: by its program and by the argument that names
// the run directory.
bool IsService(const Instance& instance, const char* service, pid_t pid);
// The daemon or the fetcher, by its pid file; none when no process of this instance has that pid.
PinnedProcess PinService(const Instance& instance, const char* service);
pid_t ServicePid(const Instance& instance, const char* service);

// REQUIRES: LockInstance for each of the following.
//
// Returns whether this call started it.  EBUSY when it runs and `settings` are not the default, or
// when it has mounts and no supervisor.
cachecore::Result<bool> EnsureRunning(const Instance& instance, const Settings& settings,
                                      const Deadline& deadline);
// Whether something else, such as systemd, runs it: neither a supervisor of ours nor its orphans.
bool IsRunElsewhere(const Instance& instance);
// Ends every process of the instance and removes its run directory.  EBUSY, and nothing is touched,
// when it IsRunElsewhere or anything uses a file system of it.
cachecore::Status StopInstance(const Instance& instance);
// Ends the FUSE connection, so that nothing waits for it any more, and takes away all that is
// mounted from it, and its records.  Returns the mount points.  REQUIRES: its daemon is gone, or is
// to go.
std::vector<std::string> DetachMounts(const Instance& instance);
// The same for mounts of an earlier life; says so on stderr.
void DetachLostMounts(const Instance& instance);
// DetachLostMounts when nothing of the instance runs.
void DetachDeadMounts(const Instance& instance);
// Removes what a life leaves in the run directory.  REQUIRES: nothing of the instance runs.
void ClearRunDirectory(const Instance& instance);
// What is mounted or just being made, recorded or not.  Needs no lock.
cachecore::Result<std::vector<MountRecord>> LiveMounts(const Instance& instance);

// The last line of `log` from `offset` on that tells of an error, or the last of any kind; without
// its time stamp.  "" when there is none.
std::string LastErrorLine(const std::string& log, size_t offset);

}  // namespace cli

#endif  // CLI_INSTANCE_CONTROL_H_
