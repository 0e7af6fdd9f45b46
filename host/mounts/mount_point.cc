#include "host/mounts/mount_point.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "cachecore/system/files.h"
#include "cachecore/system/trusted_path.h"
#include "host/mounts/fuse_release.h"

namespace host {
namespace {

using cachecore::FindMount;
using cachecore::MountEntry;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

constexpr char kRunRoot[] = "/run/holdfast/";

// As the kernel writes it now; "" when it can't be reached any more.
std::string PathOf(const UniqueFd& directory) {
  std::string path = cachecore::PathOfDescriptor(directory);
  struct stat info;
  // "(deleted)" or "(unreachable)" stands in the paths of such directories.
  if (fstat(directory.get(), &info) != 0 || info.st_nlink == 0 || !path.starts_with("/")) return "";
  return path;
}

Result<MountPoint> OpenMountPoint(const std::string& path) {
  Result<UniqueFd> found = cachecore::OpenTrustedPath(path, {.user = geteuid()});
  if (!found.ok()) {
    const int error = found.status().error();
    if (error == ENOENT) {
      return Status(ENOENT, "mount point " + path + " does not exist; create it: mkdir -p " + path);
    }
    if (error == ENOTCONN || error == EIO) {
      return Status(ENOTCONN, "mount point " + path +
                                  " is the remains of a mount whose server is gone; "
                                  "remove it: holdfast umount " +
                                  path);
    }
    if (error != ENOTDIR) return std::move(found).status().WithContext("mount point " + path);
  }
  struct stat info;
  if (!found.ok() || fstat(found->get(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    return Status(ENOTDIR, "mount point " + path + " is not a directory; name an empty directory");
  }
  MountPoint point;
  point.directory = std::move(found).value();
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

std::optional<Instance> InstanceOf(const MountEntry& mount, const std::vector<MountEntry>& table) {
  // Images are below the FUSE mount of their instance; mounts of files are parts of it.
  std::vector<std::string> places = {mount.source};
  for (const MountEntry& entry : table) {
    if (entry.device == mount.device) places.push_back(entry.mount_point);
  }
  for (const std::string& place : places) {
    const size_t run = place.find(kRunRoot);
    if (run == std::string::npos) continue;
    const size_t name = run + std::string_view(kRunRoot).size();
    const size_t end = place.find("/fuse", name);
    if (end == std::string::npos) continue;
    Result<Instance> instance =
        Instance::Make(run == 0 ? "/" : place.substr(0, run), place.substr(name, end - name));
    if (instance.ok()) return std::move(instance).value();
  }
  return std::nullopt;
}

bool IsFuseTree(const Instance& owner, const MountEntry& mount) {
  return IsHoldfastFuse(mount) && mount.root == "/" && mount.mount_point == owner.FuseDir();
}

std::string CommandToFree(const Instance& owner, const MountEntry& mount,
                          const std::vector<MountEntry>& table) {
  const std::optional<OwnedMount> owned = FindOwned(owner.root(), mount.mount_point, table);
  return owned ? UmountCommand(owned->instance, owned->mount) : "umount " + mount.mount_point;
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
                             "; unmount it first: holdfast umount" + owned->instance.RootFlag() +
                             " " + mount_point);
  }
  if (entry != nullptr) {
    if (const std::optional<Instance> other = InstanceOf(*entry, table)) {
      if (IsFuseTree(*other, *entry)) {
        return Status(EBUSY, "mount point " + mount_point + " is the FUSE tree of instance " +
                                 other->name() +
                                 ", which its mounts need; use a directory elsewhere");
      }
      return Status(EBUSY, "mount point " + mount_point + " is a mount of instance " +
                               other->name() +
                               "; unmount it first: " + CommandToFree(*other, *entry, table));
    }
    return Status(EBUSY, "mount point " + mount_point + " is busy: " + entry->type + " from " +
                             entry->source + " is mounted there; use another directory");
  }
  if (state == MountState::kMounted && owned->mount.entry.mount_point == mount_point) {
    return Status(EBUSY, "mount point " + mount_point + " shows " + owned->mount.record.url +
                             " in another mount namespace; unmount it there first: " +
                             UmountCommand(owned->instance, owned->mount));
  }
  return point;
}

}  // namespace host
