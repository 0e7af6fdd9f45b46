// What must be true before a supervisor starts anything.
//
// See      host/supervisor/supervisor.h for the errors.

#ifndef HOST_SUPERVISOR_SUPERVISOR_SETUP_H_
#define HOST_SUPERVISOR_SUPERVISOR_SETUP_H_

#include <string>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "host/supervisor/supervisor.h"

namespace host {

cachecore::Status CheckSupervisorOptions(const SupervisorOptions& options);

// Makes the run directory when its parent exists and takes its lock, held while the result is open.
// A standby shares the open file, and so the lock.
cachecore::Result<cachecore::UniqueFd> LockRunDir(const std::string& run_dir);
// Makes the directory of the notify sockets.  A service that has become another user, and so cannot
// get there by its path, looks the next supervisor's socket up by a descriptor of the directory.
cachecore::Status MakeNotifyDirectory(const std::string& run_dir);
// The socket of a service.
std::string NotifyPath(const std::string& run_dir, const std::string& service);
// Writes this process's pid to the lock file.  False, with errno, when it could not.
bool WriteLockHolder(int file);

// Whether standard error is this file, appended to.
bool IsStandardError(const std::string& path);
// Blocks SIGCHLD, SIGTERM, SIGINT, SIGHUP and SIGUSR2, which the signalfd returned then reports,
// and SIGPIPE.
cachecore::Result<cachecore::UniqueFd> BlockSignals();

// How willingly the kernel ends this process for want of memory; "" where it does not say.
std::string ReadOomScore();
void RestoreOomScore(const std::string& score);
// Makes this process adopt orphans, hard to kill for want of memory, and resident.
void HardenProcess();

}  // namespace host

#endif  // HOST_SUPERVISOR_SUPERVISOR_SETUP_H_
