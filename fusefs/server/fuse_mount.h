// Mounting and unmounting the FUSE tree, with mount(2) itself.
//
// Errors   the system call's errno, with the directory.
// See      docs/design.md "The FUSE side".

#ifndef FUSEFS_SERVER_FUSE_MOUNT_H_
#define FUSEFS_SERVER_FUSE_MOUNT_H_

#include <string>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"

namespace fusefs {

cachecore::Result<cachecore::UniqueFd> OpenFuse();

// Detaches a mount at `directory` whose server is gone for good, if there is one.
cachecore::Status DetachDeadMount(const std::string& directory);

// Mounts an open /dev/fuse on `directory` (made if need be).
cachecore::Status MountFuse(const std::string& directory, int fuse);

// Lets the kernel read ahead further than its default of 128 KiB.  Best effort.
void RaiseKernelReadAhead(const std::string& directory, int kilobytes);

cachecore::Status UnmountFuse(const std::string& directory);

}  // namespace fusefs

#endif  // FUSEFS_SERVER_FUSE_MOUNT_H_
