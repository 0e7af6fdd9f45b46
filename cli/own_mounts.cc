#include "cli/own_mounts.h"

#include <sys/mount.h>

#include <algorithm>

#include "cli/files.h"
#include "cli/fuse_release.h"
#include "cli/process.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;

// What an EROFS file system is on: a file, by the name it was mounted with or its loop device has.
std::string BackingFile(const MountEntry& entry) {
  constexpr char kLoopMajor[] = "7:";
  if (!entry.device.starts_with(kLoopMajor)) return entry.source;
  const Result<std::string> file =
      ReadFile("/sys/dev/block/" + entry.device + "/loop/backing_file");
  return file.ok() ? file->substr(0, file->find('\n')) : "";
}

const MountEntry* FindIn(const std::vector<MountEntry>& table, const MountRecord& record) {
  const MountEntry* entry = FindMountById(table, record.mount_id);
  return entry != nullptr && entry->device == record.superblock ? entry : nullptr;
}

// Of records that an earlier version wrote, and claims of a process that died after mounting.
const MountEntry* FindByPoint(const Instance& instance, const MountRecord& record,
                              const std::vector<MountEntry>& table, const std::string& fuse) {
  const MountEntry* entry = FindMount(table, record.mount_point);
  if (entry == nullptr) return nullptr;
  return IsOf(instance, *entry, fuse) || (record.mounted && IsHoldfastFuse(*entry)) ? entry
                                                                                   : nullptr;
}

bool IsClaimerAlive(const MountRecord& record) {
  return record.claimed_by > 0 && ProcessStart(record.claimed_by) == record.claimer_started;
}

OwnMount Unrecorded(const MountEntry& entry) {
  OwnMount mount;
  mount.record.mount_point = entry.mount_point;
  mount.record.kind = entry.type == "erofs" ? "erofs" : "file";
  mount.record.device = entry.source;
  mount.record.mounted = true;
  mount.record.mount_id = entry.id;
  mount.record.superblock = entry.device;
  mount.state = MountState::kMounted;
  mount.entry = entry;
  mount.is_here = true;
  return mount;
}

// Whether a record speaks of the file system of `entry`: then it is a bind mount of somebody's.
bool IsRecorded(const std::vector<OwnMount>& mounts, const MountEntry& entry) {
  return std::any_of(mounts.begin(), mounts.end(), [&entry](const OwnMount& mount) {
    if (mount.state != MountState::kMounted && mount.state != MountState::kDead) return false;
    return mount.entry.device == entry.device &&
           (mount.entry.type == "erofs" || mount.entry.root == entry.root);
  });
}

bool IsAlive(const OwnMount& mount) {
  return mount.state == MountState::kMounted || mount.state == MountState::kMounting;
}

}  // namespace

bool IsHoldfastFuse(const MountEntry& entry) { return entry.type == "fuse.holdfast"; }

std::string FuseDevice(const Instance& instance, const std::vector<MountEntry>& table) {
  const MountEntry* entry = FindMount(table, instance.FuseDir());
  return entry != nullptr && IsHoldfastFuse(*entry) ? entry->device : "";
}

bool IsOf(const Instance& instance, const MountEntry& entry, const std::string& fuse_device) {
  if (IsHoldfastFuse(entry)) return !fuse_device.empty() && entry.device == fuse_device;
  return entry.type == "erofs" && BackingFile(entry).starts_with(instance.FuseDir() + "/");
}

OwnMount LookUp(const Instance& instance, const MountRecord& record,
                const std::vector<MountEntry>& table) {
  OwnMount mount;
  mount.record = record;
  if (!record.mounted && IsClaimerAlive(record)) {
    mount.state = MountState::kMounting;
    return mount;
  }
  const std::string fuse = FuseDevice(instance, table);
  const bool has_id = record.mounted && record.mount_id != 0;
  const auto find = [&](const std::vector<MountEntry>& in) {
    return has_id ? FindIn(in, record) : FindByPoint(instance, record, in, fuse);
  };
  const MountEntry* entry = find(table);
  Result<std::vector<MountEntry>> now = std::vector<MountEntry>();
  // It may have been mounted since the table was read.
  if (entry == nullptr) now = ReadMountTable();
  if (entry == nullptr && now.ok()) entry = find(*now);
  mount.is_here = entry != nullptr;
  std::vector<ForeignTable> foreign;
  if (entry == nullptr && has_id) foreign = ReadForeignTables();
  for (size_t i = 0; entry == nullptr && i < foreign.size(); ++i) {
    entry = FindIn(foreign[i].table, record);
  }
  if (entry == nullptr) return mount;
  mount.entry = *entry;
  mount.record.mounted = true;
  const bool is_earlier =
      !record.fuse_device.empty() && !fuse.empty() && record.fuse_device != fuse;
  mount.state = is_earlier ? MountState::kDead : MountState::kMounted;
  return mount;
}

Result<std::vector<OwnMount>> ListMounts(const Instance& instance) {
  const std::vector<MountRecord> records = ListMountRecords(instance);  // Before the table.
  ASSIGN_OR_RETURN(const std::vector<MountEntry> table, ReadMountTable());
  std::vector<OwnMount> mounts;
  for (const MountRecord& record : records) mounts.push_back(LookUp(instance, record, table));
  const std::string fuse = FuseDevice(instance, table);
  std::vector<OwnMount> unrecorded;
  for (const MountEntry& entry : table) {
    if (!IsOf(instance, entry, fuse) || IsRecorded(mounts, entry)) continue;
    if (IsHoldfastFuse(entry) && entry.root == "/") continue;  // FuseDir's own, or a copy.
    const bool is_claimed = std::any_of(mounts.begin(), mounts.end(), [&](const OwnMount& mount) {
      return mount.state == MountState::kMounting && mount.record.mount_point == entry.mount_point;
    });
    if (!is_claimed && !IsRecorded(unrecorded, entry)) unrecorded.push_back(Unrecorded(entry));
  }
  for (OwnMount& mount : unrecorded) mounts.push_back(std::move(mount));
  return mounts;
}

Result<bool> HasMounts(const Instance& instance) {
  const std::vector<std::string> files = ListMountRecordFiles(instance);  // Before the table.
  ASSIGN_OR_RETURN(const std::vector<MountEntry> table, ReadMountTable());
  std::set<std::string> dead;
  for (const std::string& file : files) {
    const std::optional<MountRecord> record = ReadMountRecord(file);
    if (!record) continue;
    const OwnMount mount = LookUp(instance, *record, table);
    if (IsAlive(mount)) return true;
    if (mount.state == MountState::kDead) dead.insert(mount.entry.device);
  }
  const std::string fuse = FuseDevice(instance, table);
  return std::any_of(table.begin(), table.end(), [&](const MountEntry& entry) {
    return IsOf(instance, entry, fuse) && !dead.contains(entry.device) &&
           !(IsHoldfastFuse(entry) && entry.root == "/");
  });
}

std::optional<OwnMount> FindOwnMount(const Instance& instance, const std::string& path,
                                     const std::vector<MountEntry>& table) {
  const MountEntry* entry = FindMount(table, path);
  if (entry == nullptr) return std::nullopt;
  const auto is_this = [entry](const OwnMount& mount) {
    return mount.is_here && mount.entry.id == entry->id;
  };
  // Nearly always it is still where it was mounted.
  if (const auto record = ReadMountRecord(MountRecordFile(instance, path))) {
    const OwnMount mount = LookUp(instance, *record, table);
    if (is_this(mount)) return mount;
  }
  if (!IsOf(instance, *entry, FuseDevice(instance, table)) && !IsHoldfastFuse(*entry)) {
    return std::nullopt;
  }
  const Result<std::vector<OwnMount>> mounts = ListMounts(instance);
  if (!mounts.ok()) return std::nullopt;
  const auto found = std::find_if(mounts->begin(), mounts->end(), is_this);
  if (found == mounts->end()) return std::nullopt;
  return *found;
}

Result<bool> IsMountedAt(const Instance& instance, const std::string& path) {
  ASSIGN_OR_RETURN(const std::vector<MountEntry> table, ReadMountTable());
  const std::optional<OwnMount> mount = FindOwnMount(instance, path, table);
  return mount && mount->state == MountState::kMounted && !IsConnectionDead(instance);
}

bool Detach(const MountEntry& entry) {
  const Result<std::vector<MountEntry>> table = ReadMountTable();
  const MountEntry* now = table.ok() ? FindMountById(*table, entry.id) : nullptr;
  if (now == nullptr || now->device != entry.device) return false;
  if (FindMount(*table, now->mount_point) != now) return false;
  return umount2(now->mount_point.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0;
}

}  // namespace cli
