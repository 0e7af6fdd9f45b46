#include "cli/mount_point.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>

#include "cli/files.h"
#include "cli/fuse_release.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

std::string LinkTarget(const std::string& path) {
  char target[PATH_MAX];
  const ssize_t length = readlink(path.c_str(), target, sizeof target);
  return length > 0 ? std::string(target, static_cast<size_t>(length)) : "";
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

std::optional<OwnedMount> FindOwned(const std::string& root, const std::string& path,
                                    const std::vector<MountEntry>& table) {
  std::optional<OwnedMount> recorded;
  for (const Instance& instance : Instance::List(root)) {
    if (std::optional<OwnMount> mount = FindOwnMount(instance, path, table)) {
      return OwnedMount{instance, std::move(*mount)};
    }
    const std::optional<MountRecord> record = ReadMountRecord(MountRecordFile(instance, path));
    if (!record || record->mount_point != path) continue;
    OwnMount mount = LookUp(instance, *record, table);
    if (!recorded || mount.state != MountState::kGone) recorded = {instance, std::move(mount)};
  }
  return recorded;
}

bool MountPoint::IsInPlace() const { return PathOf(directory) == path; }

Result<MountPoint> CheckMountPoint(const std::string& root, const std::string& path,
                                   const std::vector<MountEntry>& table) {
  ASSIGN_OR_RETURN(MountPoint point, OpenMountPoint(path));
  const std::string& mount_point = point.path;
  const std::optional<OwnedMount> owned = FindOwned(root, mount_point, table);
  const MountState state = owned ? owned->mount.state : MountState::kGone;
  const MountEntry* entry = FindMount(table, mount_point);
  const bool is_there = owned && entry != nullptr && entry->id == owned->mount.entry.id;
  const bool is_dead =
      is_there && (state == MountState::kDead || IsConnectionDead(owned->instance));
  if (is_dead) return point;
  if (state == MountState::kMounting || (state == MountState::kMounted && is_there)) {
    const MountRecord& record = owned->mount.record;
    return Status(EBUSY, "mount point " + mount_point + " already " +
                             (record.mounted ? "shows " : "is being mounted with ") +
                             (record.url.empty() ? record.device : record.url) +
                             "; unmount it first: holdfast umount " + mount_point);
  }
  if (entry != nullptr) {
    return Status(EBUSY, "mount point " + mount_point + " is busy: " + entry->type + " from " +
                             entry->source + " is mounted there; use another directory or umount " +
                             mount_point);
  }
  if (state == MountState::kMounted && owned->mount.entry.mount_point == mount_point) {
    return Status(EBUSY, "mount point " + mount_point + " shows " + owned->mount.record.url +
                             " in another mount namespace; unmount it there first");
  }
  return point;
}

}  // namespace cli
