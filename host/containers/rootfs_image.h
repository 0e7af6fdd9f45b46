// Shared image mounts: the one EROFS mount of an image that all its root file systems lie on.
//
// Model    what `holdfast mount` does makes it and what `holdfast umount` does takes it away: what
//          holds for any mount holds for this one.
// Errors   what these say; ETIMEDOUT names what was waited for.
// Threads  thread-safe: a lock for each image, that of an unreachable registry delays no other.
// Crash    a mount whose maker is killed becomes whole or is undone, and is taken away as unused.

#ifndef HOST_CONTAINERS_ROOTFS_IMAGE_H_
#define HOST_CONTAINERS_ROOTFS_IMAGE_H_

#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "host/containers/rootfs_record.h"
#include "host/instance/instance.h"
#include "host/registries/registry_options.h"

namespace host {

// The flags of `holdfast mount` that say the same.
std::vector<std::string> MountFlagsOf(const RegistryAccess& access);
// REQUIRES: the record is written and held: that keeps ReleaseImagesBut's callers from its image.
cachecore::Status MountSharedImage(const Instance& instance, const RootfsRecord& record,
                                   const cachecore::Deadline& deadline);
// Takes away every image's mount but those at `used`.
// REQUIRES: the lock of the instance's root file systems.
cachecore::Status ReleaseImagesBut(const Instance& instance, const std::vector<std::string>& used,
                                   const cachecore::Deadline& deadline);
// EBUSY lists the mounts that an instance has and names the command that takes the first away: the
// image of a root file system goes with the last one that is made of it.
cachecore::Status CheckHasNoMounts(const Instance& instance);
// Ends the container of a bundle, if there is one, and what its runtime remembers.
void EndContainer(const std::string& bundle, const std::string& name);

}  // namespace host

#endif  // HOST_CONTAINERS_ROOTFS_IMAGE_H_
