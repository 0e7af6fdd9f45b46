// Mount-point checks: everything about MOUNTPOINT that can be refused before anything is started.
//
// Errors   ENOENT, ENOTDIR, EBUSY, ENOTCONN; each message names the path and the cure.
// Threads  thread-safe: no state.

#ifndef CLI_MOUNT_POINT_H_
#define CLI_MOUNT_POINT_H_

#include <optional>
#include <string>
#include <vector>

#include "cachecore/status.h"
#include "cachecore/unique_fd.h"
#include "cli/instance.h"
#include "cli/mount_table.h"
#include "cli/own_mounts.h"

namespace cli {

struct OwnedMount {
  Instance instance;
  OwnMount mount;
};

// Among all instances beneath `root` what is mounted at `path`, or is recorded for it.
std::optional<OwnedMount> FindOwned(const std::string& root, const std::string& path,
                                    const std::vector<MountEntry>& table);

// A mount point: the directory that its path led to once, and that directory's real path.
struct MountPoint {
  std::string path;
  cachecore::UniqueFd directory;  // O_PATH: what is mounted is moved onto it.

  // Whether the directory still has the path; another one may have been put in its place.
  bool IsInPlace() const;
};

// Opens it, once nothing speaks against mounting there.
cachecore::Result<MountPoint> CheckMountPoint(const std::string& root, const std::string& path,
                                               const std::vector<MountEntry>& table);

}  // namespace cli

#endif  // CLI_MOUNT_POINT_H_
