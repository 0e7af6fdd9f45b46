// OwnMounts: the one authority on what an instance has mounted, and on what uses it.
//
// Model    The FUSE mount at FuseDir has a device number.  A file system is the instance's when it
//          has that device, or is EROFS on a file below FuseDir.  A record knows its mount by mount
//          id and device, so that a moved or renamed one is found, in any mount namespace; mount
//          tables are read after the records, so that a mount made meanwhile is not missed.
// Errors   every Status names the file.
// Threads  thread-safe: no state.
// Cost     a mount table, and the tables of other namespaces only where this one does not decide.
// See      cachecore/system/mount_table.h, host/mounts/mount_record.h

#ifndef HOST_MOUNTS_OWN_MOUNTS_H_
#define HOST_MOUNTS_OWN_MOUNTS_H_

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cachecore/base/status.h"
#include "cachecore/system/mount_table.h"
#include "host/instance/instance.h"
#include "host/mounts/mount_record.h"

namespace host {

enum class MountState {
  kMounting,  // A living process has claimed the mount point and is mounting.
  kMounted,
  kDead,  // Mounted, on an earlier FUSE connection: nothing serves it any more.
  kGone,  // A record without a mount, or a claim without its process.
};

struct OwnMount {
  MountRecord record;  // With only what the mount table tells when there is none.
  MountState state = MountState::kGone;
  // Of kMounted and kDead, where it is now.
  cachecore::MountEntry entry = {};
  bool is_here = false;  // In this process's mount namespace.
  pid_t seen_by = 0;     // Of one that is not: a process in the namespace that has it.
};

// Any Holdfast's FUSE mount, or a part of one.
bool IsHoldfastFuse(const cachecore::MountEntry& entry);
// The device of what is mounted at FuseDir; "" without a mount.
std::string FuseDevice(const Instance& instance, const std::vector<cachecore::MountEntry>& table);
// Whether `entry` shows something of the instance's; `fuse_device` is its FuseDevice.
bool IsOf(const Instance& instance, const cachecore::MountEntry& entry,
          const std::string& fuse_device);

// What has become of `record`, by a table that is younger than it.
OwnMount LookUp(const Instance& instance, const MountRecord& record,
                const std::vector<cachecore::MountEntry>& table);
// Everything that is recorded, kGone included, and what is mounted without a record; by mount
// point.
cachecore::Result<std::vector<OwnMount>> ListMounts(const Instance& instance);
// Whether the instance has a mount that is alive or is just being made.
cachecore::Result<bool> HasMounts(const Instance& instance);
// The instance's mount that is topmost at `path` in `table`, recorded or not.
std::optional<OwnMount> FindOwnMount(const Instance& instance, const std::string& path,
                                     const std::vector<cachecore::MountEntry>& table);
// Whether a living mount of the instance is at `path`.
cachecore::Result<bool> IsMountedAt(const Instance& instance, const std::string& path);

// The command that unmounts it where it is now, also in another mount namespace.
std::string UmountCommand(const Instance& instance, const OwnMount& mount);

// Detaches the mount, wherever it is by now in this namespace, when it is the topmost one there.
bool Detach(const cachecore::MountEntry& entry);

// What else uses the file system of a mount, but what goes with it: other mounts of it in any mount
// namespace, overlays above it.  "" for nothing; else "also mounted on /x, ...".
std::string DescribeOtherUsers(const Instance& instance, const OwnMount& mount);
// "held by bash (12), vim (34)": processes with files of these file systems open or mapped, or in
// them.
std::string DescribeHolders(const std::set<std::string>& devices);
// Both, for a mount that was detached and is only recorded.
std::string DescribeUsersOfDetached(const Instance& instance, const MountRecord& record);
// Both, for all that an instance has mounted, or had and was detached in use; without the users of
// `but` when that is given.
std::string DescribeUsers(const Instance& instance, const OwnMount* but = nullptr);

}  // namespace host

#endif  // HOST_MOUNTS_OWN_MOUNTS_H_
