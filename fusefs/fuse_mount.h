// Mounting and unmounting the FUSE tree, with mount(2) itself.
//
// Errors   the system call's errno, with the directory.
// See      docs/design.md "The FUSE side".

#ifndef FUSEFS_FUSE_MOUNT_H_
#define FUSEFS_FUSE_MOUNT_H_

#include <string>

#include "cachecore/status.h"
#include "cachecore/unique_fd.h"

namespace fusefs {

// Opens /dev/fuse and mounts it on `directory` (made if need be); a dead mount of an earlier life
// that is still there is detached first.  Returns the connection's descriptor.
cachecore::Result<cachecore::UniqueFd> MountFuse(const std::string& directory);

// Lets the kernel read ahead further than its default of 128 KiB.  Best effort.
void RaiseKernelReadAhead(const std::string& directory, int kilobytes);

cachecore::Status UnmountFuse(const std::string& directory);

}  // namespace fusefs

#endif  // FUSEFS_FUSE_MOUNT_H_
