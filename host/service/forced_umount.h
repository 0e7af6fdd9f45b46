// ForceUmount: detaches a mount and ends its waiting reads, in any state of its daemons.
//
// Model    A daemon that serves is asked to fail this image's reads, and goes on while the instance
//          has other mounts, or users of mounts that were detached earlier.  Otherwise the FUSE
//          connection is aborted in the kernel, its mounts are detached, and supervisor and daemons
//          are killed: all mounts of the instance go with it, and stderr names them.  What was
//          fetched is kept.
// Errors   EBUSY: something else is mounted over it, it is just being mounted, or a process does
//          not end.
// Threads  one thread only.
// Cost     at most kForceTimeout, and less by far unless processes hang.
// See      docs/semantics.md "Ways out"

#ifndef HOST_SERVICE_FORCED_UMOUNT_H_
#define HOST_SERVICE_FORCED_UMOUNT_H_

#include <chrono>
#include <vector>

#include "cachecore/base/status.h"
#include "host/mounts/mount_point.h"

namespace host {

inline constexpr std::chrono::milliseconds kForceTimeout{5000};

// REQUIRES: LockInstance, unless another command holds that lock and does not release it.
cachecore::Status ForceUmount(const OwnedMount& owned);

// Ends the reads of images that a mount showed which was detached in use; what else shows them goes
// on.  ETIMEDOUT and the like: the daemon does not serve.  REQUIRES: LockInstance.
cachecore::Status EndReadsOfDetached(const Instance& instance,
                                     const std::vector<MountRecord>& images);

}  // namespace host

#endif  // HOST_SERVICE_FORCED_UMOUNT_H_
