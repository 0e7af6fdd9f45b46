// The command line of holdfastd: flags to DaemonConfig.
//
// Errors   EINVAL naming the flag and what it takes.

#ifndef FUSEFS_FLAGS_H_
#define FUSEFS_FLAGS_H_

#include <sys/types.h>

#include "cachecore/base/status.h"
#include "fusefs/daemon.h"

namespace fusefs {

// REQUIRES: gflags has parsed the command line.
cachecore::Result<DaemonConfig> ConfigFromFlags();
// --check-flags: not to serve; ConfigFromFlags says what is wrong.
bool IsFlagCheckAsked();
// --check-state: not to serve, but to say whether we could.
bool IsStateCheckAsked();
// --check-pid; 0: none.
pid_t RunningDaemon();

}  // namespace fusefs

#endif  // FUSEFS_FLAGS_H_
