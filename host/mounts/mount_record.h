// MountRecord: what `holdfast mount` remembers about one of its mounts, one file each.
//
// Model    A record is written with state "mounting" by the process that is about to mount; that
//          file is its claim to the mount point.  It becomes "mounted" when the mount is usable and
//          goes with the mount.  What has become of it says host/mounts/own_mounts.h.
// Errors   every Status names the file.
// Threads  immutable value; two processes claiming one mount point: one gets EEXIST.
// Crash    written whole or not at all; a stale one goes with the next mount, umount or stop.

#ifndef HOST_MOUNTS_MOUNT_RECORD_H_
#define HOST_MOUNTS_MOUNT_RECORD_H_

#include <sys/types.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cachecore/base/status.h"
#include "host/instance/instance.h"

namespace host {

struct MountRecord {
  std::string mount_point;
  std::string url;       // Without user, password and query; or an image reference.
  std::string manifest;  // The digest of the image's manifest; "" when it has none.
  std::string volume;
  std::string object;   // "" of an overlay, which has those of its layers.
  std::string kind;     // "erofs", "file" or "overlay"; "" while that isn't known yet.
  std::string device;   // What is mounted: a file of the FUSE mount, a loop device or a directory.
  uint64_t offset = 0;  // Where in the object its file system begins, in bytes.
  bool mounted = false;
  pid_t claimed_by = 0;          // The process that mounts; see claimer_started.
  uint64_t claimer_started = 0;  // Its ProcessStart: another process may get the same number.
  int64_t since_unix_s = 0;
  // What the mount is known by while it lasts; 0 and "" in records of earlier versions.
  int mount_id = 0;
  std::string superblock;   // "MAJOR:MINOR" of the file system that is mounted.
  std::string fuse_device;  // The same of the FUSE mount that it shows or is on.
  // Of an overlay: the mount points of its layers, which have records of their own; the lowest
  // first.
  std::vector<std::string> layers = {};
  std::string file = "";  // What it was read from; not in the file itself.

  nlohmann::json ToJson() const;
  static MountRecord FromJson(const nlohmann::json& value);
};

// One file name for each mount point, without its ending.
std::string MountFileName(const std::string& mount_point);
std::string MountRecordFile(const Instance& instance, const std::string& mount_point);
// REQUIRES, for each of the next three: LockInstance.
//
// EEXIST when the point has a record in this instance.
cachecore::Status ClaimMountPoint(const Instance& instance, const MountRecord& record);
cachecore::Status UpdateMountRecord(const Instance& instance, const MountRecord& record);
void RemoveMountRecord(const Instance& instance, const std::string& mount_point);
void RemoveMountRecord(const Instance& instance, const MountRecord& record);
// The files that may be records.
std::vector<std::string> ListMountRecordFiles(const Instance& instance);
// Nothing when the file is no record, or gone.
std::optional<MountRecord> ReadMountRecord(const std::string& file);
// By mount point; files that are no records are passed over.
std::vector<MountRecord> ListMountRecords(const Instance& instance);

}  // namespace host

#endif  // HOST_MOUNTS_MOUNT_RECORD_H_
