// Shared image mounts: the one EROFS mount of an image that all its root file systems lie on.
//
// Model    `holdfast mount` makes it and `holdfast umount` takes it away, run as programs: what
//          holds for any mount holds for this one.
// Errors   what these say.
// Threads  thread-safe: a lock for each image, that of an unreachable registry delays no other.
// Crash    a mount whose maker is killed becomes whole or is undone, and is taken away as unused.

#ifndef CLI_ROOTFS_IMAGE_H_
#define CLI_ROOTFS_IMAGE_H_

#include <string>
#include <vector>

#include "cachecore/status.h"
#include "cli/deadline.h"
#include "cli/instance.h"
#include "cli/registry_options.h"
#include "cli/rootfs_record.h"

namespace cli {

// The flags of `holdfast mount` that say the same.
std::vector<std::string> MountFlagsOf(const RegistryAccess& access);
// REQUIRES: the record is written and held: that keeps ReleaseImagesBut's callers from its image.
cachecore::Status MountSharedImage(const Instance& instance, const RootfsRecord& record,
                                   const Deadline& deadline);
// Takes away every image's mount but those at `used`.
// REQUIRES: the lock of the instance's root file systems.
cachecore::Status ReleaseImagesBut(const Instance& instance, const std::vector<std::string>& used);
// Ends the container of a bundle, if there is one, and what its runtime remembers.
void EndContainer(const std::string& bundle, const std::string& name);

}  // namespace cli

#endif  // CLI_ROOTFS_IMAGE_H_
