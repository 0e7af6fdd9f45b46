// FuseRelease: takes an instance's FUSE mount away, unless anything at all uses its file system.
//
// Model    The kernel is asked, not a list: a plain umount of the tree is refused while an EROFS
//          file system, a loop device or an open file is on it, and a connection that lives on
//          without that mount has another user, such as a bind mount in a namespace that can't be
//          seen.  Then the tree is mounted again, on the same connection.
// Errors   EBUSY names the users that can be found; everything is as before then.
// Threads  thread-safe: no state.  REQUIRES: LockInstance, so that no mount is begun meanwhile.
// Crash    killed between the umount and the mount it leaves an instance without its tree;
//          RestoreFuse mends that.
// See      docs/design.md "What is mounted"

#ifndef HOST_MOUNTS_FUSE_RELEASE_H_
#define HOST_MOUNTS_FUSE_RELEASE_H_

#include "cachecore/base/status.h"
#include "host/instance/instance.h"

namespace host {

// OK also when there is no mount, or one whose processes are all gone.
cachecore::Status ReleaseFuse(const Instance& instance);
// Whether the instance's FUSE connection has ended: what is mounted on it is served by nothing, and
// the next one has no part in it.  False when that can't be told, as while nothing answers.
bool IsConnectionDead(const Instance& instance);
// Whether the server of what is mounted there is gone for good.  False when that can't be told.
bool HasLostServer(const std::string& path);
// Mounts the tree again where a living instance has lost it.
cachecore::Status RestoreFuse(const Instance& instance);

}  // namespace host

#endif  // HOST_MOUNTS_FUSE_RELEASE_H_
