#include "cli/mount_point.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>

#include "cli/files.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

constexpr size_t kHoldersShownMax = 5;

std::string LinkTarget(const std::string& path) {
  char target[PATH_MAX];
  const ssize_t length = readlink(path.c_str(), target, sizeof target);
  return length > 0 ? std::string(target, static_cast<size_t>(length)) : "";
}

bool IsAtOrBelow(const std::string& path, const std::string& directory) {
  return path == directory || path.starts_with(directory + "/");
}

bool ProcessHolds(const std::string& process, const std::string& mount_point) {
  for (const char* link : {"/cwd", "/root", "/exe"}) {
    if (IsAtOrBelow(LinkTarget(process + link), mount_point)) return true;
  }
  for (const std::string& fd : ListDirectory(process + "/fd")) {
    if (IsAtOrBelow(LinkTarget(process + "/fd/" + fd), mount_point)) return true;
  }
  return false;
}

// As the kernel writes it now; "" when it can't be reached any more.
std::string PathOf(const UniqueFd& directory) {
  std::string path = LinkTarget("/proc/self/fd/" + std::to_string(directory.get()));
  struct stat info;
  // "(deleted)" or "(unreachable)" stands in the paths of such directories.
  if (fstat(directory.get(), &info) != 0 || info.st_nlink == 0 || !path.starts_with("/")) return "";
  return path;
}

Result<MountPoint> OpenMountPoint(const std::string& path) {
  MountPoint point;
  point.directory.Reset(open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  struct stat info;
  if (!point.directory.valid() || fstat(point.directory.get(), &info) != 0) {
    if (errno == ENOENT) {
      return Status(ENOENT, "mount point " + path + " does not exist; create it: mkdir -p " + path);
    }
    if (errno == ENOTCONN || errno == EIO) {
      return Status(ENOTCONN, "mount point " + path +
                                  " is the remains of a mount whose server is gone; "
                                  "remove it: holdfast umount " +
                                  path);
    }
    if (errno == ENOTDIR) {
      return Status(ENOTDIR,
                    "mount point " + path + " is not a directory; name an empty directory");
    }
    return Status::FromErrno(errno, "mount point " + path);
  }
  point.path = PathOf(point.directory);
  if (point.path.empty()) return Status(ENOENT, "mount point " + path + " has been removed");
  return point;
}

}  // namespace

std::optional<OwnedRecord> FindRecord(const std::string& root, const std::string& mount_point) {
  for (const Instance& instance : Instance::List(root)) {
    for (MountRecord& record : ListMountRecords(instance)) {
      if (record.mount_point == mount_point) return OwnedRecord{instance, std::move(record)};
    }
  }
  return std::nullopt;
}

bool MountPoint::IsInPlace() const { return PathOf(directory) == path; }

Result<MountPoint> CheckMountPoint(const std::string& root, const std::string& path,
                                   const std::vector<MountEntry>& table) {
  ASSIGN_OR_RETURN(MountPoint point, OpenMountPoint(path));
  const std::string& mount_point = point.path;
  const std::optional<OwnedRecord> owned = FindRecord(root, mount_point);
  if (owned && owned->record.IsAlive(table)) {
    return Status(EBUSY, "mount point " + mount_point + " already " +
                             (owned->record.mounted ? "shows " : "is being mounted with ") +
                             owned->record.url + "; unmount it first: holdfast umount " +
                             mount_point);
  }
  if (const MountEntry* entry = FindMount(table, mount_point)) {
    return Status(EBUSY, "mount point " + mount_point + " is busy: " + entry->type + " from " +
                             entry->source + " is mounted there; use another directory or umount " +
                             mount_point);
  }
  return point;
}

std::string DescribeHolders(const std::string& mount_point) {
  std::string text;
  size_t found = 0;
  for (const std::string& pid : ListDirectory("/proc")) {
    if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
    const std::string process = "/proc/" + pid;
    if (!ProcessHolds(process, mount_point)) continue;
    if (++found > kHoldersShownMax) return text + ", ...";
    const Result<std::string> comm = ReadFile(process + "/comm");
    const std::string name = comm.ok() ? comm->substr(0, comm->find('\n')) : "process";
    text += (text.empty() ? "held by " : ", ") + name + " (" + pid + ")";
  }
  return text;
}

}  // namespace cli
