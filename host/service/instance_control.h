// Instance control: starting an instance, stopping it, and clearing away what an earlier life left.
//
// Model    running = its control socket answers.  All three need InstanceLock, so of two commands
//          that find it stopped one starts it and the other finds it running.
// Errors   every Status names the instance or process; a daemon that dies at its start is quoted
//          from its log.
// Threads  thread-safe: no state.
// See      holdfast(1) FILES

#ifndef HOST_SERVICE_INSTANCE_CONTROL_H_
#define HOST_SERVICE_INSTANCE_CONTROL_H_

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/system/process.h"
#include "host/instance/instance.h"
#include "host/instance/settings.h"
#include "host/mounts/mount_record.h"

namespace host {

// Of the commands that change the instance one holds this at a time: until the result is closed.
cachecore::Result<cachecore::UniqueFd> LockInstance(const Instance& instance,
                                                    const cachecore::Deadline& deadline);

// Why its daemon couldn't be asked, for people: what `error` of CallControl means and its cure.
cachecore::Status WhyUnasked(const Instance& instance, const cachecore::Status& error);
bool AnswersPing(const Instance& instance);
// The supervisor's status file; an empty object without one.
nlohmann::json ReadSuperviseStatus(const Instance& instance);
// Whether `pid` is this instance's daemon, fetcher or server of metrics: by its program and by the
// argument that names the run directory or the instance.
bool IsService(const Instance& instance, const char* service, pid_t pid);
// One of these, by its pid file; none when no process of this instance has that pid.
cachecore::PinnedProcess PinService(const Instance& instance, const char* service);
pid_t ServicePid(const Instance& instance, const char* service);

// REQUIRES: LockInstance for each of the following.
//
// Returns whether this call started it.  One that has lost its supervisor gets another.  EBUSY when
// it runs and `settings` are neither the default nor those that it was started with.
cachecore::Result<bool> EnsureRunning(const Instance& instance, const Settings& settings,
                                      const cachecore::Deadline& deadline);
// Whether another supervisor, systemd for example, runs it: neither `holdfast supervise` nor its
// orphans.
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
// Detaches the cachefiles device of a daemon that has ended, also at the path `given`, which no
// settings name, and removes the file that was made for it.
void DetachLostDevice(const Instance& instance, const std::string& given = "");
// DetachLostMounts when nothing of the instance runs.
void DetachDeadMounts(const Instance& instance);
// Before a life: takes away what an earlier one has left, but its pid files and what its supervisor
// has counted.
void CleanStart(const Instance& instance);
// Removes what a life leaves in the run directory.  REQUIRES: nothing of the instance runs.
void ClearRunDirectory(const Instance& instance);
// Removes the state of an instance whose first start has failed, so that it is listed no more.
// REQUIRES: nothing of the instance runs.
void RemoveState(const Instance& instance);
// What is mounted or just being made, recorded or not.  Needs no lock.
cachecore::Result<std::vector<MountRecord>> LiveMounts(const Instance& instance);
// The same without the layers of its overlays, for which nobody has asked by themselves.
cachecore::Result<std::vector<MountRecord>> AskedMounts(const Instance& instance);

// The last line of `log` from `offset` on that tells of an error, or the last of any kind; without
// its time stamp.  "" when there is none.
std::string LastErrorLine(const std::string& log, size_t offset);

}  // namespace host

#endif  // HOST_SERVICE_INSTANCE_CONTROL_H_
