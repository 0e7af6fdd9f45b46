// What must be true before a supervisor starts anything.
//
// See      cli/supervisor.h for the errors.

#ifndef CLI_SUPERVISOR_SETUP_H_
#define CLI_SUPERVISOR_SETUP_H_

#include <string>

#include "cachecore/status.h"
#include "cachecore/unique_fd.h"
#include "cli/supervisor.h"

namespace cli {

cachecore::Status CheckSupervisorOptions(const SupervisorOptions& options);

// Makes the run directory when its parent exists and takes its lock, held while the result is open.
cachecore::Result<cachecore::UniqueFd> LockRunDir(const std::string& run_dir);

// Blocks SIGCHLD, SIGTERM, SIGINT and SIGHUP, which the signalfd returned then reports, and
// SIGPIPE.
cachecore::Result<cachecore::UniqueFd> BlockSignals();

// Makes this process adopt orphans, hard to kill for want of memory, and resident.
void HardenProcess();

}  // namespace cli

#endif  // CLI_SUPERVISOR_SETUP_H_
