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
#include <string>
#include <vector>

#include "cachecore/status.h"
#include "cachecore/unique_fd.h"
#include "cli/instance.h"
#include "cli/mount_record.h"
#include "cli/settings.h"

namespace cli {

// Makes the run directory and holds it until the result is closed.
cachecore::Result<cachecore::UniqueFd> LockInstance(const Instance& instance);

bool AnswersPing(const Instance& instance);
// The supervisor's status file; an empty object without one.
nlohmann::json ReadSuperviseStatus(const Instance& instance);

// REQUIRES: LockInstance for each of the following.
//
// Returns whether this call started it.  EBUSY when it runs and `settings` are not the default.
cachecore::Result<bool> EnsureRunning(const Instance& instance, const Settings& settings);
// Whether something else, such as systemd, runs it: neither a supervisor of ours nor its orphans.
bool IsRunElsewhere(const Instance& instance);
// Ends every process of the instance and removes its run directory; EBUSY when it IsRunElsewhere.
// REQUIRES: no mounts.
cachecore::Status StopInstance(const Instance& instance);
// Records of mounts that exist or are just being made; removes the stale ones.
cachecore::Result<std::vector<MountRecord>> LiveMounts(const Instance& instance);

// The last line of `log` from `offset` on that tells of an error, or the last of any kind; without
// its time stamp.  "" when there is none.
std::string LastErrorLine(const std::string& log, size_t offset);

}  // namespace cli

#endif  // CLI_INSTANCE_CONTROL_H_
