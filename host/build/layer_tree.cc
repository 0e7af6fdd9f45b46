#include "host/build/layer_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <sstream>
#include <string_view>

namespace host {
namespace {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

constexpr std::string_view kWhiteout = ".wh.";
constexpr std::string_view kOpaque = ".wh..wh..opq";
constexpr std::string_view kWhiteoutOfAufs = ".wh..wh.";
constexpr mode_t kPermissions = 07777;
constexpr mode_t kUnnamedMode = 0755;
constexpr int kAttemptsMax = 1000;

// Without "." and "..": what these lead out of was never entered.
std::vector<std::string> NamesOf(const std::string& path) {
  std::vector<std::string> names;
  std::istringstream parts(path);
  for (std::string part; std::getline(parts, part, '/');) {
    if (part.empty() || part == ".") continue;
    if (part != "..") {
      names.push_back(std::move(part));
    } else if (!names.empty()) {
      names.pop_back();
    }
  }
  return names;
}

// Its own records, which mean nothing to others.
bool IsOfAufs(const std::vector<std::string>& names) {
  return std::any_of(names.begin(), names.end(),
                     [](const std::string& name) { return name.starts_with(kWhiteoutOfAufs); });
}

std::string ProcPath(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

void SetTime(const std::string& path, const timespec& time) {
  const timespec times[2] = {time, time};
  utimensat(AT_FDCWD, path.c_str(), times, 0);
}

Status SetTimeOfEntry(const std::string& path, const timespec& time) {
  const timespec times[2] = {time, time};
  if (utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW) == 0) return {};
  return Status::FromErrno(errno, "set its time");
}

// What was there before, and what a directory's default ACL gives to what is made in it.
Status RemoveXattrs(const std::string& path) {
  std::vector<char> names(XATTR_LIST_MAX);
  const ssize_t size = llistxattr(path.c_str(), names.data(), names.size());
  if (size < 0 && errno == EOPNOTSUPP) return {};
  if (size < 0) return Status::FromErrno(errno, "list its extended attributes");
  for (const char* name = names.data(); name < names.data() + size;
       name += std::string_view(name).size() + 1) {
    // A label of the security module's own stays.
    if (lremovexattr(path.c_str(), name) != 0 && std::string_view(name) != "security.selinux") {
      return Status::FromErrno(errno, std::string("remove its extended attribute ") + name);
    }
  }
  return {};
}

// Everything that an inode has beside its contents.  The order matters: a new owner takes
// capabilities and setuid bits away, and an inherited ACL would change the mode.
Status SetMetadata(const std::string& path, const LayerEntry& entry) {
  if (lchown(path.c_str(), entry.uid, entry.gid) != 0) {
    return Status::FromErrno(errno, "set its owner");
  }
  if (!S_ISLNK(entry.mode)) {
    RETURN_IF_ERROR(RemoveXattrs(path));
    if (chmod(path.c_str(), entry.mode & kPermissions) != 0) {
      return Status::FromErrno(errno, "set its mode");
    }
  }
  for (const auto& [name, value] : entry.xattrs) {
    if (lsetxattr(path.c_str(), name.c_str(), value.data(), value.size(), 0) != 0) {
      return Status::FromErrno(errno, "set its extended attribute " + name);
    }
  }
  return SetTimeOfEntry(path, entry.mtime);
}

Result<std::vector<std::string>> NamesIn(int directory, const std::string& name) {
  const int fd = openat(directory, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return Status::FromErrno(errno, "open a directory to empty it");
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(fdopendir(fd), closedir);
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* entry = readdir(stream.get());
    if (entry == nullptr && errno != 0) return Status::FromErrno(errno, "read a directory");
    if (entry == nullptr) return names;
    const std::string_view read = entry->d_name;
    if (read != "." && read != "..") names.emplace_back(read);
  }
}

}  // namespace

std::string LayerTree::Place::Path() const { return ProcPath(directory.get()) + "/" + name; }

void LayerTree::Place::RestoreTime() const { SetTime(ProcPath(directory.get()), time); }

Result<std::unique_ptr<LayerTree>> LayerTree::Make(const std::string& directory) {
  if (mkdir(directory.c_str(), kUnnamedMode) != 0) {
    return Status::FromErrno(errno, "make " + directory);
  }
  UniqueFd root(open(directory.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!root.valid()) return Status::FromErrno(errno, "open " + directory);
  LayerEntry unnamed;
  unnamed.mode = S_IFDIR | kUnnamedMode;
  RETURN_IF_ERROR(SetMetadata(ProcPath(root.get()) + "/.", unnamed).WithContext(directory));
  return std::unique_ptr<LayerTree>(new LayerTree(std::move(root)));
}

Status LayerTree::Put(const LayerEntry& entry, const Writer& write) {
  const Names names = NamesOf(entry.name);
  if (names.empty()) return PutRoot(entry);
  if (names.back() != kOpaque && IsOfAufs(names)) return {};
  if (names.back().starts_with(kWhiteout)) return WhiteOut(names);
  ASSIGN_OR_RETURN(const Place place, FindPlace(names, /*makes=*/true));
  const Status put = PutAt(place, entry, write);
  place.RestoreTime();
  if (put.ok()) made_.emplace(place.inode, place.name);
  return put;
}

Status LayerTree::PutRoot(const LayerEntry& entry) {
  if (entry.is_hard_link || !S_ISDIR(entry.mode)) {
    return Status(EINVAL, "it takes the place of the root directory");
  }
  return SetMetadata(ProcPath(root_.get()) + "/.", entry);
}

Result<UniqueFd> LayerTree::OpenDirectory(const Names& names, size_t count) const {
  std::string path = ".";
  for (size_t i = 0; i < count; ++i) path += "/" + names[i];
  struct open_how how = {};
  how.flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  // EAGAIN: something was renamed, anywhere, while a ".." of a symlink was followed.
  for (int attempt = 0;; ++attempt) {
    const long fd = syscall(SYS_openat2, root_.get(), path.c_str(), &how, sizeof how);
    if (fd >= 0) return UniqueFd(static_cast<int>(fd));
    if (errno != EAGAIN || attempt == kAttemptsMax) return Status::FromErrno(errno, "open " + path);
  }
}

Result<LayerTree::Place> LayerTree::FindPlace(const Names& names, bool makes) {
  Place place;
  place.name = names.back();
  Result<UniqueFd> directory = OpenDirectory(names, names.size() - 1);
  if (!directory.ok()) {
    const int error = directory.status().error();
    if (error != ENOENT && error != ENOTDIR && error != ELOOP) return directory.status();
    if (!makes) return Status(ENOENT, "its directory is not there");
    RETURN_IF_ERROR(MakeDirectory(names, names.size() - 1));
    directory = OpenDirectory(names, names.size() - 1);
    if (!directory.ok()) return directory.status();
  }
  place.directory = std::move(directory).value();
  struct stat info = {};
  if (fstat(place.directory.get(), &info) != 0) return Status::FromErrno(errno, "its directory");
  place.inode = info.st_ino;
  place.time = info.st_mtim;
  return place;
}

Status LayerTree::MakeDirectory(const Names& names, size_t count) {
  LayerEntry unnamed;
  unnamed.mode = S_IFDIR | kUnnamedMode;
  for (size_t i = 1; i <= count; ++i) {
    if (OpenDirectory(names, i).ok()) continue;
    const Names path(names.begin(), names.begin() + static_cast<Names::difference_type>(i));
    ASSIGN_OR_RETURN(const Place place, FindPlace(path, /*makes=*/false));
    const Status made = PutAt(place, unnamed, nullptr);
    place.RestoreTime();
    RETURN_IF_ERROR(made);
    made_.emplace(place.inode, place.name);
  }
  return {};
}

Status LayerTree::WhiteOut(const Names& names) {
  const std::string& name = names.back();
  const bool is_opaque = name == kOpaque;
  const std::string hidden = name.substr(kWhiteout.size());
  if (!is_opaque && (hidden.empty() || hidden == "." || hidden == "..")) {
    return Status(EINVAL, "it is a whiteout of no file");
  }
  const Result<Place> place = FindPlace(names, /*makes=*/false);
  if (!place.ok()) return place.status().error() == ENOENT ? Status() : place.status();
  Status removed;
  if (is_opaque) {
    ASSIGN_OR_RETURN(const Names all, NamesIn(place->directory.get(), "."));
    for (const std::string& each : all) {
      removed = Remove(place->directory.get(), place->inode, each, /*all=*/false).status();
      if (!removed.ok()) break;
    }
  } else {
    removed = Remove(place->directory.get(), place->inode, hidden, /*all=*/false).status();
  }
  place->RestoreTime();
  return removed;
}

Status LayerTree::PutAt(const Place& place, const LayerEntry& entry, const Writer& write) {
  if (entry.is_hard_link) return Link(place, entry);
  struct stat info = {};
  const bool exists =
      fstatat(place.directory.get(), place.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0;
  const bool stays = exists && S_ISDIR(info.st_mode) && S_ISDIR(entry.mode);
  if (exists && !stays) {
    RETURN_IF_ERROR(Remove(place.directory.get(), place.inode, place.name, /*all=*/true).status());
  }
  if (!stays) RETURN_IF_ERROR(Create(place, entry, write));
  return SetMetadata(place.Path(), entry);
}

Status LayerTree::Link(const Place& place, const LayerEntry& entry) {
  const Names names = NamesOf(entry.target);
  if (names.empty()) return Status(EINVAL, "it is a link to the root directory");
  const Result<Place> target = FindPlace(names, /*makes=*/false);
  struct stat info = {};
  if (!target.ok() ||
      fstatat(target->directory.get(), target->name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
    return Status(ENOENT, "it is a link to " + entry.target + ", which is not there");
  }
  if (target->inode == place.inode && target->name == place.name) return {};
  RETURN_IF_ERROR(Remove(place.directory.get(), place.inode, place.name, /*all=*/true).status());
  if (linkat(target->directory.get(), target->name.c_str(), place.directory.get(),
             place.name.c_str(), 0) == 0) {
    return {};
  }
  return Status::FromErrno(errno, "link it to " + entry.target);
}

Status LayerTree::Create(const Place& place, const LayerEntry& entry, const Writer& write) const {
  const int directory = place.directory.get();
  const char* name = place.name.c_str();
  int made = -1;
  switch (entry.mode & S_IFMT) {
    case S_IFREG: {
      const UniqueFd fd(openat(directory, name,
                               O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                               S_IRUSR | S_IWUSR));
      if (!fd.valid()) break;
      return write ? write(fd.get()) : Status();
    }
    case S_IFDIR:
      made = mkdirat(directory, name, S_IRWXU);
      break;
    case S_IFLNK:
      made = symlinkat(entry.target.c_str(), directory, name);
      break;
    case S_IFCHR:
    case S_IFBLK:
    case S_IFIFO:
      made = mknodat(directory, name, (entry.mode & S_IFMT) | S_IRUSR, entry.device);
      break;
    default:
      return Status(EINVAL, "it is of no known type");
  }
  return made == 0 ? Status() : Status::FromErrno(errno, "make it");
}

Result<bool> LayerTree::Remove(int directory, ino_t inode, const std::string& name, bool all) {
  struct stat info = {};
  if (fstatat(directory, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return false;
    return Status::FromErrno(errno, "look at what is there");
  }
  bool stays = !all && made_.count({inode, name}) > 0;
  if (!S_ISDIR(info.st_mode)) {
    if (stays || unlinkat(directory, name.c_str(), 0) == 0) return stays;
    return Status::FromErrno(errno, "remove what is there");
  }
  const UniqueFd child(
      openat(directory, name.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!child.valid()) return Status::FromErrno(errno, "open what is there");
  ASSIGN_OR_RETURN(const Names names, NamesIn(directory, name));
  for (const std::string& each : names) {
    ASSIGN_OR_RETURN(const bool is_left, Remove(child.get(), info.st_ino, each, all));
    stays = stays || is_left;
  }
  if (stays) {
    SetTime(ProcPath(child.get()), info.st_mtim);
    return true;
  }
  if (unlinkat(directory, name.c_str(), AT_REMOVEDIR) == 0) return false;
  return Status::FromErrno(errno, "remove what is there");
}

}  // namespace host
