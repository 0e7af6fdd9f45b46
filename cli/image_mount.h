// Image mounts: an object of the FUSE mount shown at a mount point, and taken away again.
//
// Model    EROFS images are mounted from the object's file by mount(2) itself; where the kernel
// can't
//          (before 6.12, or a FUSE mount with passthrough), from a read-only loop device that goes
//          with the mount.  Any other object is shown by a read-only bind mount of its volume's
//          directory.
// Errors   what mount(2) says, with the cure where there is one; nothing stays mounted after an
// error. Threads  thread-safe: no state.  Each call returns at its deadline, whoever holds the
// kernel up.

#ifndef CLI_IMAGE_MOUNT_H_
#define CLI_IMAGE_MOUNT_H_

#include <string>

#include "cachecore/status.h"
#include "cli/deadline.h"
#include "cli/instance.h"
#include "cli/mount_record.h"

namespace cli {

// The first `length` bytes of `path`, or all it has.
cachecore::Result<std::string> ReadHead(const std::string& path, size_t length,
                                        const Deadline& deadline);

// Each returns once the mount can be listed; the result is what is mounted (a file, a loop device,
// a directory).
cachecore::Result<std::string> MountErofs(const std::string& image, const std::string& mount_point,
                                          const std::string& options, const Deadline& deadline);
// What MountErofs falls back to.
cachecore::Result<std::string> MountErofsByLoop(const std::string& image,
                                                const std::string& mount_point,
                                                const std::string& options,
                                                const Deadline& deadline);
cachecore::Result<std::string> BindDirectory(const std::string& directory,
                                             const std::string& mount_point,
                                             const Deadline& deadline);

// Whether the topmost mount at the record's point can be the one it speaks of.
bool IsOwnMount(const MountEntry& entry);
// Takes away every mount at `path`, whoever uses it.
void DetachAll(const std::string& path);

}  // namespace cli

#endif  // CLI_IMAGE_MOUNT_H_
