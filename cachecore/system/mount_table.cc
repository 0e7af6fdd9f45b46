#include "cachecore/system/mount_table.h"

#include <libmount/libmount.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <set>

#include "cachecore/system/files.h"
#include "cachecore/system/trusted_path.h"

namespace cachecore {
namespace {

std::string TextOf(const char* text) { return text == nullptr ? "" : text; }

// "shared:7" and "master:3" among the optional fields.
int GroupIn(const std::string& fields, const std::string& name) {
  const size_t found = fields.find(name + ":");
  return found == std::string::npos ? 0 : std::atoi(fields.c_str() + found + name.size() + 1);
}

MountEntry EntryOf(libmnt_fs* fs) {
  MountEntry entry;
  const dev_t device = mnt_fs_get_devno(fs);
  entry.device = std::to_string(major(device)) + ":" + std::to_string(minor(device));
  entry.mount_point = TextOf(mnt_fs_get_target(fs));
  entry.root = TextOf(mnt_fs_get_root(fs));
  entry.type = TextOf(mnt_fs_get_fstype(fs));
  entry.source = TextOf(mnt_fs_get_source(fs));
  entry.options = TextOf(mnt_fs_get_fs_options(fs));
  entry.id = mnt_fs_get_id(fs);
  entry.parent = mnt_fs_get_parent_id(fs);
  const std::string fields = TextOf(mnt_fs_get_optional_fields(fs));
  entry.peer_group = GroupIn(fields, "shared");
  entry.master = GroupIn(fields, "master");
  return entry;
}

int PassOverLine(libmnt_table*, const char*, int) { return 1; }

std::string LinkOf(const std::string& path) {
  char target[PATH_MAX];
  const ssize_t length = readlink(path.c_str(), target, sizeof target);
  return length > 0 ? std::string(target, static_cast<size_t>(length)) : "";
}

// What decides which mounts a process sees.
std::string ViewOf(const std::string& process) {
  const std::string names = LinkOf(process + "/ns/mnt");
  return names.empty() ? "" : names + " " + LinkOf(process + "/root");
}

}  // namespace

std::vector<MountEntry> ParseMountTable(const std::string& mountinfo) {
  std::vector<MountEntry> table;
  const std::unique_ptr<libmnt_table, void (*)(libmnt_table*)> parsed(mnt_new_table(),
                                                                      mnt_unref_table);
  const std::unique_ptr<libmnt_iter, void (*)(libmnt_iter*)> next(mnt_new_iter(MNT_ITER_FORWARD),
                                                                  mnt_free_iter);
  if (!parsed || !next || mountinfo.empty()) return table;
  const std::unique_ptr<FILE, int (*)(FILE*)> stream(
      fmemopen(const_cast<char*>(mountinfo.data()), mountinfo.size(), "r"), std::fclose);
  mnt_table_set_parser_errcb(parsed.get(), PassOverLine);
  if (!stream || mnt_table_parse_stream(parsed.get(), stream.get(), "mountinfo") != 0) return table;
  libmnt_fs* fs = nullptr;
  while (mnt_table_next_fs(parsed.get(), next.get(), &fs) == 0) table.push_back(EntryOf(fs));
  return table;
}

Result<std::vector<MountEntry>> ReadMountTable() {
  const Result<std::string> text = ReadFile("/proc/self/mountinfo");
  if (text.ok()) return ParseMountTable(*text);
  return Status(text.status().error(), text.status().message() + ": is /proc mounted?");
}

Result<std::vector<MountEntry>> ReadMountTable(pid_t pid) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile("/proc/" + std::to_string(pid) + "/mountinfo"));
  return ParseMountTable(text);
}

std::vector<ForeignTable> ReadForeignTables() {
  std::vector<ForeignTable> tables;
  std::set<std::string> seen = {"", ViewOf("/proc/self")};
  for (const std::string& name : ListDirectory("/proc")) {
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    if (!seen.insert(ViewOf("/proc/" + name)).second) continue;
    const pid_t pid = std::atoi(name.c_str());
    Result<std::vector<MountEntry>> table = ReadMountTable(pid);
    if (table.ok()) tables.push_back({pid, std::move(table).value()});
  }
  return tables;
}

const MountEntry* FindMount(const std::vector<MountEntry>& table, const std::string& mount_point) {
  for (auto entry = table.rbegin(); entry != table.rend(); ++entry) {
    if (entry->mount_point == mount_point) return &*entry;
  }
  return nullptr;
}

const MountEntry* FindMountById(const std::vector<MountEntry>& table, int id) {
  const auto found = std::find_if(table.begin(), table.end(),
                                  [id](const MountEntry& entry) { return entry.id == id; });
  return found == table.end() ? nullptr : &*found;
}

const MountEntry* FindMountAbove(const std::vector<MountEntry>& table, const std::string& path) {
  const MountEntry* best = nullptr;
  for (const MountEntry& entry : table) {
    const std::string& point = entry.mount_point;
    const bool is_above = path == point || point == "/" || path.starts_with(point + "/");
    if (is_above && (best == nullptr || point.size() >= best->mount_point.size())) best = &entry;
  }
  return best;
}

Result<int> MountIdOf(int fd) {
  const std::string file = "/proc/self/fdinfo/" + std::to_string(fd);
  ASSIGN_OR_RETURN(const std::string text, ReadFile(file));
  constexpr char kField[] = "mnt_id:";
  const size_t found = text.find(kField);
  if (found == std::string::npos) return Status(EPROTO, file + " has no mount id");
  return std::atoi(text.c_str() + found + sizeof kField - 1);
}

Result<std::string> PathWithoutEntering(const std::string& path) {
  std::string trimmed = path;
  while (trimmed.size() > 1 && trimmed.back() == '/') trimmed.pop_back();
  const size_t slash = trimmed.rfind('/');
  const std::string last = slash == std::string::npos ? trimmed : trimmed.substr(slash + 1);
  if (last.empty() || last == "." || last == "..") return TrustedRealPath(trimmed);
  const std::string parent = slash == std::string::npos ? "." : trimmed.substr(0, slash + 1);
  ASSIGN_OR_RETURN(const std::string real_parent, TrustedRealPath(parent));
  return (real_parent == "/" ? "" : real_parent) + "/" + last;
}

}  // namespace cachecore
