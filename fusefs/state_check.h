// CheckState: could this program go on where the running daemon is?
//
// Model    asked of a new binary by `holdfast upgrade` while the old one serves.  Looks at what a
//          takeover needs: the database's schema, what was agreed with the kernel when FUSE was
//          mounted, which holds as long as the mount does, and the requests that the running daemon
//          keeps for a kernel that cannot send them again.
// Errors   EPROTO names what speaks against it; else what kept us from looking.
// Threads  thread-safe; blocks on disk.  Writes nothing.
// See      docs/recovery.md "An upgrade"

#ifndef FUSEFS_STATE_CHECK_H_
#define FUSEFS_STATE_CHECK_H_

#include <sys/types.h>

#include <string>

#include "cachecore/base/status.h"
#include "fusefs/daemon.h"

namespace fusefs {

// The answer is a sentence for people.
// `running`: the daemon's pid, or 0; what it keeps in memory is looked at too.
cachecore::Result<std::string> CheckState(const DaemonConfig& config, pid_t running);

}  // namespace fusefs

#endif  // FUSEFS_STATE_CHECK_H_
