// ImageMountOptions: the options of a mount, those of the mount point apart from those of the file
// system.
//
// Model    text as `mount -o` takes it: words separated by commas.  Words that every mount knows
//          (nosuid, nodev, noexec, noatime, ...) become attributes of the mount; words for programs
//          (defaults, nofail, x-...) mean nothing here; all others are the file system's own.  A
//          later word outweighs an earlier one.  An image mount is read-only.
// Errors   EINVAL names the word.
// Threads  immutable value.
// See      mount(8) "FILESYSTEM-INDEPENDENT MOUNT OPTIONS"; mount_setattr(2)

#ifndef HOST_MOUNT_IMAGE_MOUNT_OPTIONS_H_
#define HOST_MOUNT_IMAGE_MOUNT_OPTIONS_H_

#include <sys/mount.h>

#include <cstdint>
#include <string>
#include <vector>

#include "cachecore/base/status.h"

namespace host {

struct ImageMountOptions {
  uint64_t attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
  std::vector<std::string> own;  // The file system's: WORD or KEY=VALUE.

  // nosuid and nodev hold unless `suid` and `dev`, or the words "suid" and "dev", say otherwise.
  static cachecore::Result<ImageMountOptions> Parse(const std::string& text, bool suid, bool dev);
};

}  // namespace host

#endif  // HOST_MOUNT_IMAGE_MOUNT_OPTIONS_H_
