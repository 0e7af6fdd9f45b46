#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <functional>

#include "cli/files.h"
#include "cli/own_mounts.h"

namespace cli {
namespace {

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

// "" when that can't be told.  Asks no file system that could wait for a server.
std::string DeviceOf(const std::string& path) {
  struct statx info;
  if (statx(AT_FDCWD, path.c_str(), AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, 0, &info) != 0) return "";
  return std::to_string(info.stx_dev_major) + ":" + std::to_string(info.stx_dev_minor);
}

bool ProcessHolds(const std::string& process, const std::set<std::string>& devices) {
  for (const char* link : {"/cwd", "/root", "/exe"}) {
    if (devices.contains(DeviceOf(process + link))) return true;
  }
  const std::vector<std::string> fds = ListDirectory(process + "/fd");
  return std::any_of(fds.begin(), fds.end(), [&](const std::string& fd) {
    return devices.contains(DeviceOf(process + "/fd/" + fd));
  });
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

bool IsOverlayOn(const MountEntry& overlay, const std::vector<MountEntry>& table,
                 const OwnMount& mount) {
  if (overlay.type != "overlay") return false;
  for (const std::string& lower : LowerDirectories(overlay)) {
    for (const std::string& point : {mount.record.mount_point, mount.entry.mount_point}) {
      if (lower == point || lower.starts_with(point + "/")) return true;
    }
    const MountEntry* below = FindMountAbove(table, lower);
    if (below != nullptr && below->device == mount.entry.device && mount.entry.type == "erofs") {
      return true;
    }
  }
  return false;
}

// The peer groups that an unmount of a mount in `group` reaches.
std::set<int> GroupsBelow(int group, const std::vector<std::vector<MountEntry>>& tables) {
  std::set<int> groups;
  if (group != 0) groups.insert(group);
  for (size_t before = 0; before != groups.size();) {
    before = groups.size();
    for (const std::vector<MountEntry>& table : tables) {
      for (const MountEntry& entry : table) {
        if (groups.contains(entry.master) && entry.peer_group != 0) groups.insert(entry.peer_group);
      }
    }
  }
  return groups;
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

}  // namespace

std::string DescribeHolders(const std::set<std::string>& devices) {
  ShortList list;
  for (const std::string& pid : ListDirectory("/proc")) {
    if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
    if (ProcessHolds("/proc/" + pid, devices)) list.Add(NameOf(pid));
  }
  return list.text().empty() ? "" : "held by " + list.text();
}

std::string DescribeOtherUsers(const Instance& instance, const OwnMount& mount) {
  const std::vector<View> views = AllViews();
  std::vector<std::vector<MountEntry>> tables;
  for (const View& view : views) tables.push_back(view.table);
  const std::set<int> groups = GroupsBelow(mount.entry.peer_group, tables);
  const auto goes_along = [&](const MountEntry& entry) {
    return groups.contains(entry.peer_group) || groups.contains(entry.master);
  };
  std::vector<std::pair<MountEntry, std::string>> same;
  ShortList list;
  for (const View& view : views) {
    for (const MountEntry& entry : view.table) {
      if (entry.id == mount.entry.id) continue;
      const bool shows_it = entry.device == mount.entry.device &&
                            (entry.type == "erofs" || entry.root.starts_with(mount.entry.root));
      if (shows_it && !goes_along(entry)) same.push_back({entry, view.suffix});
      if (IsOverlayOn(entry, view.table, mount)) {
        list.Add("lower layer of the overlay on " + entry.mount_point + view.suffix);
      }
    }
  }
  // A mount of the same file that has its own record is nobody's but its own.
  const std::vector<MountRecord> records =
      same.empty() ? std::vector<MountRecord>() : ListMountRecords(instance);
  for (const auto& [entry, suffix] : same) {
    const bool is_recorded = std::any_of(
        records.begin(), records.end(),
        [id = entry.id](const MountRecord& record) { return record.mount_id == id; });
    if (!is_recorded) list.Add("also mounted on " + entry.mount_point + suffix);
  }
  return list.text();
}

std::string DescribeUsers(const Instance& instance) {
  const std::vector<View> views = AllViews();
  const std::string fuse = views.empty() ? "" : FuseDevice(instance, views.front().table);
  std::set<std::string> devices;
  if (!fuse.empty()) devices.insert(fuse);
  ShortList list;
  for (const View& view : views) {
    for (const MountEntry& entry : view.table) {
      if (!IsOf(instance, entry, fuse)) continue;
      devices.insert(entry.device);
      const bool is_the_tree = IsHoldfastFuse(entry) && entry.mount_point == instance.FuseDir();
      if (!is_the_tree) list.Add("mounted on " + entry.mount_point + view.suffix);
    }
  }
  const std::string holders = DescribeHolders(devices);
  if (holders.empty()) return list.text();
  return list.text() + (list.text().empty() ? "" : "; ") + holders;
}

}  // namespace cli
