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
#include "cli/mount_record.h"
#include "cli/mount_table.h"

namespace cli {

struct OwnedRecord {
  Instance instance;
  MountRecord record;
};

// The record of a mount point among all instances beneath `root`.
std::optional<OwnedRecord> FindRecord(const std::string& root, const std::string& mount_point);

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

// "held by bash (12), vim (34)" for a mount that is busy, or "" when nobody is found.
std::string DescribeHolders(const std::string& mount_point);

}  // namespace cli

#endif  // CLI_MOUNT_POINT_H_
