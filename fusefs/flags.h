// The command line of holdfastd: flags to DaemonConfig.
//
// Errors   EINVAL naming the flag and what it takes.

#ifndef FUSEFS_FLAGS_H_
#define FUSEFS_FLAGS_H_

#include "cachecore/status.h"
#include "fusefs/daemon.h"

namespace fusefs {

// REQUIRES: gflags has parsed the command line.
cachecore::Result<DaemonConfig> ConfigFromFlags();
// --check_state: not to serve, but to say whether we could.
bool IsStateCheckAsked();

}  // namespace fusefs

#endif  // FUSEFS_FLAGS_H_
