// Image mounts: an object of the FUSE mount shown at a mount point, and taken away again.
//
// Model    EROFS images are mounted from the object's file itself; where the kernel can't (before
//          6.12, or a FUSE mount with passthrough), from a read-only loop device that goes with the
//          mount.  Other file systems, and a part of an object, are mounted from such a device
//          always.  Any other object is shown by a read-only bind mount of its volume's directory.
//          An image of several layers is shown by a read-only overlay of their mounts.
//          A mount is made without a place, listed once, and only then moved onto the mount point,
//          which is an open directory: whatever its path has come to mean gets no mount.
// Errors   what the kernel says, with the cure where there is one; nothing stays mounted after an
//          error.
// Threads  thread-safe: no state.  Each call returns at its deadline, even when the kernel blocks.

#ifndef HOST_MOUNT_IMAGE_MOUNT_H_
#define HOST_MOUNT_IMAGE_MOUNT_H_

#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "host/content/image_area.h"
#include "host/content/image_content.h"
#include "host/instance/instance.h"
#include "host/mount/image_mount_options.h"
#include "host/mounts/mount_record.h"

namespace host {

struct ImageMount {
  std::string device;         // What is mounted: a file, a loop device, a directory.
  cachecore::UniqueFd mount;  // The mount's root directory.
};

// Each returns once the mount is at the directory `mount_point`.
cachecore::Result<ImageMount> MountErofs(const std::string& image, int mount_point,
                                         const ImageMountOptions& options,
                                         const cachecore::Deadline& deadline);
// A file system of a type of host/content/image_file_system.h in a part of `image`.  MountErofs
// falls back to it.
cachecore::Result<ImageMount> MountByLoop(const std::string& type, const std::string& image,
                                          const ImageArea& area, int mount_point,
                                          const ImageMountOptions& options,
                                          const cachecore::Deadline& deadline);
// A read-only overlay, named `source` in the mount table, of `layers`, which are directories of one
// directory, the lowest first.
cachecore::Result<ImageMount> OverlayLayers(const std::vector<std::string>& layers,
                                            const std::string& source, int mount_point,
                                            const ImageMountOptions& options,
                                            const cachecore::Deadline& deadline);
// EINVAL when `options` has words for a file system: there is none to take them.
cachecore::Result<ImageMount> BindDirectory(const std::string& directory, int mount_point,
                                            const ImageMountOptions& options,
                                            const cachecore::Deadline& deadline);
// One of these, as the content says: `file` is the object, `directory` the one that it is in.
cachecore::Result<ImageMount> MountContent(const ImageContent& content, const std::string& file,
                                           const std::string& directory, int mount_point,
                                           const ImageMountOptions& options,
                                           const cachecore::Deadline& deadline);
// Takes a mount away again, wherever it is by now.
void DetachMount(const ImageMount& mount);

}  // namespace host

#endif  // HOST_MOUNT_IMAGE_MOUNT_H_
