// Ends FUSE connections from outside, whatever state their server is in.
//
// Model    the kernel's own switch (fusectl): every request, waiting or new, ends with an error, in
//          the kernel, without the server.  What is mounted stays and fails until it is detached.
// Errors   the errno of the file system that has the switch.  A connection that has ended is none.
// Threads  thread-safe: no state.  Never enters the mount, so that it never waits for the server.
// See      Linux Documentation/filesystems/fuse.rst, "Control filesystem"

#ifndef HOST_MOUNTS_FUSE_ABORT_H_
#define HOST_MOUNTS_FUSE_ABORT_H_

#include "cachecore/base/status.h"
#include "cachecore/system/mount_table.h"

namespace host {

// REQUIRES: IsHoldfastFuse(mount).
cachecore::Status AbortFuseConnection(const cachecore::MountEntry& mount);

}  // namespace host

#endif  // HOST_MOUNTS_FUSE_ABORT_H_
