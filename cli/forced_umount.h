// ForceUmount: takes a mount away and ends whoever waits for it, whatever state its daemons are in.
//
// Model    A daemon that serves other mounts too is asked to fail this image's reads, and goes on.
//          Otherwise, and when this is the last mount, the FUSE connection is aborted in the
//          kernel, its mounts are detached, and supervisor and daemons are killed: all mounts of
//          the instance go with it, and stderr names them.  What was fetched is kept.
// Errors   EBUSY: something else is mounted over it, it is just being mounted, or a process does
// not
//          end.
// Threads  one thread only.
// Cost     at most kForceTimeout, and less by far unless processes hang.
// See      docs/semantics.md "Ways out"

#ifndef CLI_FORCED_UMOUNT_H_
#define CLI_FORCED_UMOUNT_H_

#include <chrono>

#include "cachecore/status.h"
#include "cli/mount_point.h"

namespace cli {

inline constexpr std::chrono::milliseconds kForceTimeout{5000};

// REQUIRES: LockInstance, unless somebody does not let go of it.
cachecore::Status ForceUmount(const OwnedMount& owned);

}  // namespace cli

#endif  // CLI_FORCED_UMOUNT_H_
