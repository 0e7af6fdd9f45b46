// Mount-point checks: everything about MOUNTPOINT that can be refused before anything is started.
//
// Errors   ENOENT, ENOTDIR, EBUSY, ENOTCONN; each message names the path and the cure.
// Threads  thread-safe: no state.

#ifndef HOST_MOUNTS_MOUNT_POINT_H_
#define HOST_MOUNTS_MOUNT_POINT_H_

#include <optional>
#include <string>
#include <vector>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/system/mount_table.h"
#include "host/instance/instance.h"
#include "host/mounts/own_mounts.h"

namespace host {

struct OwnedMount {
  Instance instance;
  OwnMount mount;
};

// Among all instances beneath `root` what is mounted at `path`, or is recorded for it.
std::optional<OwnedMount> FindOwned(const std::string& root, const std::string& path,
                                    const std::vector<cachecore::MountEntry>& table);

// The instance, below whatever root, that a mount of a Holdfast file system belongs to.
std::optional<Instance> InstanceOf(const cachecore::MountEntry& mount,
                                   const std::vector<cachecore::MountEntry>& table);

// Whether `mount` is the tree that all mounts of `owner` are made of.
bool IsFuseTree(const Instance& owner, const cachecore::MountEntry& mount);
// The command that takes away `mount`, which shows something of `owner`: a bind mount of one of its
// mounts or of its FUSE tree is not unmounted by holdfast.
std::string CommandToFree(const Instance& owner, const cachecore::MountEntry& mount,
                          const std::vector<cachecore::MountEntry>& table);

// A mount point: the directory that its path led to once, and that directory's real path.
struct MountPoint {
  std::string path;
  cachecore::UniqueFd directory;  // O_PATH: what is mounted is moved onto it.

  // Whether the directory still has the path; another one may have been put in its place.
  bool IsInPlace() const;
};

// Opens it, once nothing speaks against mounting there.
cachecore::Result<MountPoint> CheckMountPoint(const std::string& root, const std::string& path,
                                              const std::vector<cachecore::MountEntry>& table);

}  // namespace host

#endif  // HOST_MOUNTS_MOUNT_POINT_H_
