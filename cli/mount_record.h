// MountRecord: what `holdfast mount` remembers about one of its mounts, one file each.
//
// Model    A record is written with state "mounting" by the process that is about to mount; that
// file
//          is its claim to the mount point.  It becomes "mounted" when the mount is usable and goes
//          with the mount.  A claim whose process is gone and a record whose mount is gone are
//          stale.
// Errors   every Status names the file.
// Threads  immutable value; two processes claiming one mount point: one gets EEXIST.
// Crash    written whole or not at all; a stale one is taken away by whoever meets it.

#ifndef CLI_MOUNT_RECORD_H_
#define CLI_MOUNT_RECORD_H_

#include <sys/types.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cachecore/status.h"
#include "cli/instance.h"
#include "cli/mount_table.h"

namespace cli {

struct MountRecord {
  std::string mount_point;
  std::string url;       // Without user, password and query; or an image reference.
  std::string manifest;  // The digest of the image's manifest; "" when it has none.
  std::string volume;
  std::string object;
  std::string kind;    // "erofs" or "file"; "" while that isn't known yet.
  std::string device;  // What is mounted: a file of the FUSE mount, a loop device or a directory.
  bool mounted = false;
  pid_t claimed_by = 0;  // Who is mounting, since when: another process may get the same number.
  uint64_t claimer_started = 0;  // ProcessStart.
  int64_t since_unix_s = 0;

  nlohmann::json ToJson() const;
  static MountRecord FromJson(const nlohmann::json& value);
  // False once the claiming process is gone, or the mount is not in `table`.
  bool IsAlive(const std::vector<MountEntry>& table) const;
};

std::string MountRecordFile(const Instance& instance, const std::string& mount_point);
// EEXIST when the point has a record in this instance.  REQUIRES: LockInstance.
cachecore::Status ClaimMountPoint(const Instance& instance, const MountRecord& record);
cachecore::Status UpdateMountRecord(const Instance& instance, const MountRecord& record);
void RemoveMountRecord(const Instance& instance, const std::string& mount_point);
// By mount point; files that are no records are passed over.
std::vector<MountRecord> ListMountRecords(const Instance& instance);

}  // namespace cli

#endif  // CLI_MOUNT_RECORD_H_
