#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <sstream>

#include "cachecore/system/files.h"
#include "host/content/image_file_system.h"
#include "host/mounts/detached_mounts.h"
#include "host/mounts/own_mounts.h"

namespace host {
namespace {

using cachecore::FindMountAbove;
using cachecore::FindMountById;
using cachecore::ForeignTable;
using cachecore::ListDirectory;
using cachecore::MountEntry;
using cachecore::ReadFile;
using cachecore::ReadForeignTables;
using cachecore::ReadMountTable;
using cachecore::Result;

constexpr size_t kShownMax = 5;

// A list of a few, "a, b, ...".
class ShortList {
 public:
  void Add(const std::string& item) {
    if (!seen_.insert(item).second || count_ > kShownMax) return;
    ++count_;
    text_ += (text_.empty() ? "" : ", ") + (count_ > kShownMax ? "..." : item);
  }
  const std::string& text() const { return text_; }

 private:
  std::set<std::string> seen_;
  size_t count_ = 0;
  std::string text_;
};

std::string NameOf(const std::string& pid) {
  const Result<std::string> comm = ReadFile("/proc/" + pid + "/comm");
  return (comm.ok() ? comm->substr(0, comm->find('\n')) : "process") + " (" + pid + ")";
}

// What a process has of a file system, and by which mount of it.
struct Held {
  std::string device;  // "" when that can't be told.
  int mount_id = 0;
};

// Asks no file system that could wait for a server.
Held HeldAt(const std::string& path) {
  struct statx info;
  constexpr int kFlags = AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT;
  if (statx(AT_FDCWD, path.c_str(), kFlags, STATX_MNT_ID, &info) != 0) return {};
  return {std::to_string(info.stx_dev_major) + ":" + std::to_string(info.stx_dev_minor),
          static_cast<int>(info.stx_mnt_id)};
}

// The file systems whose users are looked for.
struct Sought {
  std::set<std::string> devices;
  std::set<int> but_by = {};  // Not the processes that have them by one of these mounts.

  bool Counts(const Held& held) const {
    return devices.contains(held.device) && !but_by.contains(held.mount_id);
  }
};

// What is mapped needs no descriptor any more.
bool ProcessMaps(const std::string& process, const Sought& sought) {
  const Result<std::string> maps = ReadFile(process + "/maps");
  if (!maps.ok()) return false;
  std::istringstream lines(*maps);
  for (std::string line; std::getline(lines, line);) {
    char range[64];
    unsigned device_major = 0, device_minor = 0;
    if (std::sscanf(line.c_str(), "%63s %*s %*s %x:%x", range, &device_major, &device_minor) != 3) {
      continue;
    }
    Held held = {std::to_string(device_major) + ":" + std::to_string(device_minor)};
    if (!sought.devices.contains(held.device)) continue;
    held.mount_id = HeldAt(process + "/map_files/" + range).mount_id;
    if (sought.Counts(held)) return true;
  }
  return false;
}

bool ProcessHolds(const std::string& process, const Sought& sought) {
  for (const char* link : {"/cwd", "/root", "/exe"}) {
    if (sought.Counts(HeldAt(process + link))) return true;
  }
  const std::vector<std::string> fds = ListDirectory(process + "/fd");
  const auto counts = [&](const std::string& fd) {
    return sought.Counts(HeldAt(process + "/fd/" + fd));
  };
  return std::any_of(fds.begin(), fds.end(), counts) || ProcessMaps(process, sought);
}

std::string DescribeSought(const Sought& sought) {
  ShortList list;
  for (const std::string& pid : ListDirectory("/proc")) {
    if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
    if (ProcessHolds("/proc/" + pid, sought)) list.Add(NameOf(pid));
  }
  return list.text().empty() ? "" : "held by " + list.text();
}

// The lower directories of an overlay; of each name the characters that were escaped, too.
std::vector<std::string> LowerDirectories(const MountEntry& overlay) {
  std::vector<std::string> lower;
  for (const char* option : {"lowerdir=", "lowerdir+=", "datadir+="}) {
    size_t at = 0;
    while ((at = overlay.options.find(option, at)) != std::string::npos) {
      at += std::string(option).size();
      std::string name;
      for (; at < overlay.options.size() && overlay.options[at] != ','; ++at) {
        if (overlay.options[at] == '\\' && at + 1 < overlay.options.size()) {
          name += overlay.options[++at];
        } else if (overlay.options[at] == ':') {
          lower.push_back(std::move(name));
          name.clear();
        } else {
          name += overlay.options[at];
        }
      }
      lower.push_back(std::move(name));
    }
  }
  return lower;
}

// Whether a lower directory is at `point` or below it.
bool IsIn(const std::string& name, const std::string& point) {
  std::string lower = std::filesystem::path(name).lexically_normal();
  if (lower.starts_with("/")) return lower == point || lower.starts_with(point + "/");
  // The directory that a relative name began at is not known: the end of the path is compared.
  while (lower.starts_with("../")) lower.erase(0, 3);
  for (size_t end = 0; end != std::string::npos;) {
    end = lower.find('/', end + 1);
    const std::string start = lower.substr(0, end);
    if (start == "." || start == "..") return false;
    if (!start.empty() && point.ends_with("/" + start)) return true;
  }
  return false;
}

bool IsOverlayOn(const MountEntry& overlay, const std::vector<MountEntry>& table,
                 const OwnMount& mount) {
  if (overlay.type != "overlay") return false;
  for (const std::string& lower : LowerDirectories(overlay)) {
    for (const std::string& point : {mount.record.mount_point, mount.entry.mount_point}) {
      if (IsIn(lower, point)) return true;
    }
    const MountEntry* below = FindMountAbove(table, lower);
    if (below != nullptr && below->device == mount.entry.device && !IsHoldfastFuse(mount.entry)) {
      return true;
    }
  }
  return false;
}

struct View {
  std::string suffix;  // What says where it is: "" for this process's namespace.
  std::vector<MountEntry> table;
};

std::vector<View> AllViews() {
  std::vector<View> views;
  Result<std::vector<MountEntry>> own = ReadMountTable();
  if (own.ok()) views.push_back({"", std::move(own).value()});
  for (ForeignTable& foreign : ReadForeignTables()) {
    views.push_back({" in the mount namespace of " + NameOf(std::to_string(foreign.pid)),
                     std::move(foreign.table)});
  }
  return views;
}

// The peer groups that a change below a mount of `group` reaches.
std::set<int> GroupsBelow(int group, const std::vector<View>& views) {
  std::set<int> groups;
  if (group != 0) groups.insert(group);
  for (size_t before = 0; before != groups.size();) {
    before = groups.size();
    for (const View& view : views) {
      for (const MountEntry& entry : view.table) {
        if (groups.contains(entry.master) && entry.peer_group != 0) groups.insert(entry.peer_group);
      }
    }
  }
  return groups;
}

// Where in the file system of `parent` the mount is; "" for one that is not on it.
std::string PlaceOn(const MountEntry& parent, const MountEntry& entry) {
  const std::string above = parent.mount_point == "/" ? "" : parent.mount_point;
  if (!entry.mount_point.starts_with(above + "/")) return "";
  return (parent.root == "/" ? "" : parent.root) + entry.mount_point.substr(above.size());
}

// The ids of the mounts that an unmount of `mount` takes along.  It is passed on from the mount
// below it: that one's peers and slaves lose what they have at the same place.  The mount's own
// peers, such as bind mounts of it, stay.
std::set<int> GoingAlong(const MountEntry& mount, const std::vector<View>& views) {
  std::set<int> ids = {mount.id};
  const MountEntry* parent = FindMountById(views.front().table, mount.parent);
  if (parent == nullptr || parent->peer_group == 0) return ids;
  const std::string place = PlaceOn(*parent, mount);
  if (place.empty()) return ids;
  const std::set<int> groups = GroupsBelow(parent->peer_group, views);
  for (const View& view : views) {
    for (const MountEntry& entry : view.table) {
      const MountEntry* on = FindMountById(view.table, entry.parent);
      if (on == nullptr || on->id == entry.id || PlaceOn(*on, entry) != place) continue;
      if (groups.contains(on->peer_group) || groups.contains(on->master)) ids.insert(entry.id);
    }
  }
  return ids;
}

// Whether both show the same of one file system.
bool ShowsSame(const MountEntry& a, const MountEntry& b) {
  return a.device == b.device && (!IsHoldfastFuse(a) || a.root == b.root);
}

// What is in use of mounts that no table shows.
void AddDetached(const std::vector<MountRecord>& detached, const std::vector<View>& views,
                 const OwnMount* but, Sought* sought, ShortList* list) {
  std::set<std::string> shown;
  for (const View& view : views) {
    for (const MountEntry& entry : view.table) shown.insert(entry.device);
  }
  for (const MountRecord& record : detached) {
    OwnMount mount;
    mount.record = record;
    mount.entry.mount_point = record.mount_point;
    const bool is_but = but != nullptr && record.superblock == but->entry.device &&
                        (record.kind != "file" || record.mount_id == but->entry.id);
    if (!is_but && !shown.contains(record.superblock)) sought->devices.insert(record.superblock);
    for (const View& view : views) {
      for (const MountEntry& entry : view.table) {
        if (is_but || !IsOverlayOn(entry, view.table, mount)) continue;
        list->Add("lower layer of the overlay on " + entry.mount_point + view.suffix);
      }
    }
  }
}

}  // namespace

std::string DescribeHolders(const std::set<std::string>& devices) {
  return DescribeSought({.devices = devices});
}

std::string DescribeOtherUsers(const Instance& instance, const OwnMount& mount) {
  const std::vector<View> views = AllViews();
  if (views.empty()) return "";
  std::set<int> seen = GoingAlong(mount.entry, views);
  std::vector<std::pair<MountEntry, std::string>> same;
  ShortList list;
  for (const View& view : views) {
    for (const MountEntry& entry : view.table) {
      // Processes with another root directory see mounts of the same namespace again.
      if (!seen.insert(entry.id).second) continue;
      if (IsHoldfastFuse(entry) && entry.root == "/") continue;  // FuseDir's own, or a copy.
      const bool shows_it =
          entry.device == mount.entry.device &&
          (!IsHoldfastFuse(entry) || (entry.root + "/").starts_with(mount.entry.root + "/"));
      if (shows_it) same.push_back({entry, view.suffix});
      if (IsOverlayOn(entry, view.table, mount)) {
        list.Add("lower layer of the overlay on " + entry.mount_point + view.suffix);
      }
    }
  }
  // A mount of the same file with a record of its own is no user of this one.  While it is being
  // made the record has its place and no id.
  const std::vector<MountRecord> records =
      same.empty() ? std::vector<MountRecord>() : ListMountRecords(instance);
  for (const auto& [entry, suffix] : same) {
    const bool is_recorded =
        std::any_of(records.begin(), records.end(), [&made = entry](const MountRecord& record) {
          return record.mount_id == made.id ||
                 (record.mount_id == 0 && record.mount_point == made.mount_point);
        });
    if (!is_recorded) list.Add("also mounted on " + entry.mount_point + suffix);
  }
  return list.text();
}

std::string DescribeUsersOfDetached(const Instance& instance, const MountRecord& record) {
  OwnMount mount;
  mount.record = record;
  mount.entry.mount_point = record.mount_point;
  mount.entry.device = record.superblock;
  mount.entry.type = record.kind;
  const std::string others = DescribeOtherUsers(instance, mount);
  return others.empty() ? DescribeHolders({record.superblock}) : others;
}

std::string DescribeUsers(const Instance& instance, const OwnMount* but) {
  const std::vector<View> views = AllViews();
  const std::string fuse = views.empty() ? "" : FuseDevice(instance, views.front().table);
  Sought sought;
  if (!fuse.empty()) sought.devices.insert(fuse);
  if (but != nullptr) sought.but_by.insert(but->entry.id);
  ShortList list;
  for (const View& view : views) {
    for (const MountEntry& entry : view.table) {
      if (!IsOf(instance, entry, fuse)) continue;
      if (but != nullptr && ShowsSame(entry, but->entry)) {
        sought.but_by.insert(entry.id);
        continue;
      }
      sought.devices.insert(entry.device);
      const bool is_the_tree = IsHoldfastFuse(entry) && entry.mount_point == instance.FuseDir();
      if (!is_the_tree) list.Add("mounted on " + entry.mount_point + view.suffix);
    }
  }
  AddDetached(ListDetached(instance, fuse), views, but, &sought, &list);
  const std::string holders = DescribeSought(sought);
  if (holders.empty()) return list.text();
  return list.text() + (list.text().empty() ? "" : "; ") + holders;
}

}  // namespace host
