#include "host/mounts/own_mounts.h"

#include <sys/mount.h>

#include <algorithm>
#include <map>

#include "cachecore/system/files.h"
#include "cachecore/system/pid_stamp.h"
#include "host/content/image_file_system.h"
#include "host/mounts/fuse_release.h"

namespace host {
namespace {

using cachecore::FindMount;
using cachecore::FindMountById;
using cachecore::ForeignTable;
using cachecore::MountEntry;
using cachecore::ProcessStart;
using cachecore::ReadFile;
using cachecore::ReadForeignTables;
using cachecore::ReadMountTable;
using cachecore::Result;
using cachecore::Status;

bool IsImage(const MountEntry& entry) { return FindImageFileSystem(entry.type) != nullptr; }

// What an image's file system is on: a file, by the name it was mounted with or its loop device has.
// (The device number of a btrfs is its own.)
std::string BackingFile(const MountEntry& entry) {
  constexpr std::string_view kLoop = "/dev/loop";
  if (!entry.source.starts_with(kLoop)) return entry.type == kErofsType ? entry.source : "";
  const Result<std::string> file =
      ReadFile("/sys/block/" + entry.source.substr(kLoop.size() - 4) + "/loop/backing_file");
  return file.ok() ? file->substr(0, file->find('\n')) : "";
}

// The kernel takes no long name: such a file is mounted by its name in its directory.
bool IsSource(const std::string& device, const std::string& source) {
  return device == source || device.ends_with("/" + source);
}

bool IsOverlayOf(const MountRecord& record, const MountEntry& entry) {
  return record.kind == "overlay" && entry.type == "overlay" && entry.source == record.device;
}

// What many records are looked up in: tables that are read and indexed once.
class Tables {
 public:
  // `table` outlives this.
  Tables(const Instance& instance, const std::vector<MountEntry>& table)
      : instance_(instance), table_(table), fuse_(FuseDevice(instance, table)) {
    for (const MountEntry& entry : table) by_id_.emplace(entry.id, &entry);
  }
  const std::string& fuse() const { return fuse_; }

  const MountEntry* FindHere(const MountRecord& record) const {
    if (!HasId(record)) return FindByPoint(record);
    const auto found = by_id_.find(record.mount_id);
    return found != by_id_.end() && Fits(record, *found->second) ? found->second : nullptr;
  }
  // In the other mount namespaces.  Only what has an id is known there.
  const MountEntry* FindElsewhere(const MountRecord& record, pid_t* seen_by) {
    if (!HasId(record)) return nullptr;
    if (!foreign_) foreign_ = ReadForeignTables();
    for (const ForeignTable& foreign : *foreign_) {
      const MountEntry* entry = FindMountById(foreign.table, record.mount_id);
      if (entry == nullptr || !Fits(record, *entry)) continue;
      *seen_by = foreign.pid;
      return entry;
    }
    return nullptr;
  }

 private:
  static bool HasId(const MountRecord& record) { return record.mounted && record.mount_id != 0; }
  // Ids and device numbers are given out again: another mount may have both of one that is gone.
  static bool Fits(const MountRecord& record, const MountEntry& entry) {
    if (entry.device != record.superblock) return false;
    if (FindImageFileSystem(record.kind) != nullptr) {
      return entry.type == record.kind && IsSource(record.device, entry.source);
    }
    if (record.kind == "overlay") return IsOverlayOf(record, entry);
    return IsHoldfastFuse(entry) && entry.root != "/";
  }
  // Of records that an earlier version wrote, and claims of a process that died after mounting.
  const MountEntry* FindByPoint(const MountRecord& record) const {
    const MountEntry* entry = FindMount(table_, record.mount_point);
    if (entry == nullptr) return nullptr;
    const bool is_ours = IsOf(instance_, *entry, fuse_) || IsOverlayOf(record, *entry) ||
                         (record.mounted && IsHoldfastFuse(*entry));
    return is_ours ? entry : nullptr;
  }

  const Instance& instance_;
  const std::vector<MountEntry>& table_;
  const std::string fuse_;
  std::map<int, const MountEntry*> by_id_;
  std::optional<std::vector<ForeignTable>> foreign_;  // Read when it is first needed.
};

bool IsClaimerAlive(const MountRecord& record) {
  return record.claimed_by > 0 && ProcessStart(record.claimed_by) == record.claimer_started;
}

// Of `holdfast mount-erofs`, which keeps no record: the file "FUSE_DIR/erofs,.../OBJECT" tells.
void NameObject(const Instance& instance, const std::string& file, MountRecord* record) {
  const std::string above = instance.FuseDir() + "/";
  if (!file.starts_with(above + "erofs,")) return;
  const size_t slash = file.find('/', above.size());
  if (slash == std::string::npos) return;
  record->volume = file.substr(above.size(), slash - above.size());
  record->object = file.substr(slash + 1);
  record->url = record->object + " of volume " + record->volume;
}

OwnMount Unrecorded(const Instance& instance, const MountEntry& entry) {
  OwnMount mount;
  mount.record.mount_point = entry.mount_point;
  mount.record.kind = IsImage(entry) ? entry.type : "file";
  mount.record.device = entry.source;
  if (IsImage(entry)) NameObject(instance, BackingFile(entry), &mount.record);
  mount.record.mounted = true;
  mount.record.mount_id = entry.id;
  mount.record.superblock = entry.device;
  mount.state = MountState::kMounted;
  mount.entry = entry;
  mount.is_here = true;
  return mount;
}

// What of a file system a mount shows: another mount of it is a bind mount.
std::string ShownBy(const MountEntry& entry) {
  return IsHoldfastFuse(entry) ? entry.device + " " + entry.root : entry.device;
}

// `is_younger`: the tables were read after the record.
OwnMount LookUpIn(const Instance& instance, const MountRecord& record, bool is_younger,
                  Tables* tables) {
  OwnMount mount;
  mount.record = record;
  if (!record.mounted && IsClaimerAlive(record)) {
    mount.state = MountState::kMounting;
    return mount;
  }
  const MountEntry* entry = tables->FindHere(record);
  Result<std::vector<MountEntry>> now = std::vector<MountEntry>();
  // It may have been mounted since the table was read; a claim's process may have died since, too.
  if (entry == nullptr && (!is_younger || !record.mounted)) now = ReadMountTable();
  if (entry == nullptr && now.ok()) entry = Tables(instance, *now).FindHere(record);
  mount.is_here = entry != nullptr;
  if (entry == nullptr) entry = tables->FindElsewhere(record, &mount.seen_by);
  if (entry == nullptr) return mount;
  mount.entry = *entry;
  mount.record.mounted = true;
  const bool is_earlier = !record.fuse_device.empty() && !tables->fuse().empty() &&
                          record.fuse_device != tables->fuse();
  mount.state = is_earlier ? MountState::kDead : MountState::kMounted;
  return mount;
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
  return IsImage(entry) && BackingFile(entry).starts_with(instance.FuseDir() + "/");
}

OwnMount LookUp(const Instance& instance, const MountRecord& record,
                const std::vector<MountEntry>& table) {
  Tables tables(instance, table);
  return LookUpIn(instance, record, /*is_younger=*/false, &tables);
}

Result<std::vector<OwnMount>> ListMounts(const Instance& instance) {
  const std::vector<MountRecord> records = ListMountRecords(instance);  // Before the table.
  ASSIGN_OR_RETURN(const std::vector<MountEntry> table, ReadMountTable());
  Tables tables(instance, table);
  std::vector<OwnMount> mounts;
  std::set<std::string> shown, claimed;
  for (const MountRecord& record : records) {
    mounts.push_back(LookUpIn(instance, record, /*is_younger=*/true, &tables));
    const OwnMount& mount = mounts.back();
    if (mount.state == MountState::kMounting) claimed.insert(record.mount_point);
    if (mount.state == MountState::kMounted || mount.state == MountState::kDead) {
      shown.insert(ShownBy(mount.entry));
    }
  }
  for (const MountEntry& entry : table) {
    if (!IsOf(instance, entry, tables.fuse()) || claimed.contains(entry.mount_point)) continue;
    if (IsHoldfastFuse(entry) && entry.root == "/") continue;  // FuseDir's own, or a copy.
    if (shown.insert(ShownBy(entry)).second) mounts.push_back(Unrecorded(instance, entry));
  }
  return mounts;
}

Result<bool> HasMounts(const Instance& instance) {
  const std::vector<std::string> files = ListMountRecordFiles(instance);  // Before the table.
  ASSIGN_OR_RETURN(const std::vector<MountEntry> table, ReadMountTable());
  Tables tables(instance, table);
  std::set<std::string> dead;
  for (const std::string& file : files) {
    const std::optional<MountRecord> record = ReadMountRecord(file);
    if (!record) continue;
    const OwnMount mount = LookUpIn(instance, *record, /*is_younger=*/true, &tables);
    if (IsAlive(mount)) return true;
    if (mount.state == MountState::kDead) dead.insert(mount.entry.device);
  }
  return std::any_of(table.begin(), table.end(), [&](const MountEntry& entry) {
    return IsOf(instance, entry, tables.fuse()) && !dead.contains(entry.device) &&
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
  // An overlay is only known by its record, which has another name where it was moved.
  if (!IsOf(instance, *entry, FuseDevice(instance, table)) && !IsHoldfastFuse(*entry) &&
      entry->type != "overlay") {
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

std::string UmountCommand(const Instance& instance, const OwnMount& mount) {
  const std::string enter =
      mount.seen_by == 0 ? "" : "nsenter -t " + std::to_string(mount.seen_by) + " -m ";
  const bool is_known = !mount.entry.mount_point.empty();
  return enter + "holdfast umount" + instance.RootFlag() + " " +
         (is_known ? mount.entry.mount_point : mount.record.mount_point);
}

bool Detach(const MountEntry& entry) {
  const Result<std::vector<MountEntry>> table = ReadMountTable();
  const MountEntry* now = table.ok() ? FindMountById(*table, entry.id) : nullptr;
  if (now == nullptr || now->device != entry.device) return false;
  if (FindMount(*table, now->mount_point) != now) return false;
  return umount2(now->mount_point.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0;
}

}  // namespace host
