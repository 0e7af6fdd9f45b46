#include "host/cachefiles/private_device.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <functional>
#include <vector>

#include "cachecore/base/unique_fd.h"
#include "cachecore/system/files.h"
#include "cachecore/system/mount_table.h"
#include "fusefs/cachefiles/preload/device_calls.h"

namespace host {

using cachecore::MountEntry;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

namespace {

constexpr char kDirectory[] = "/dev";
constexpr char kName[] = "cachefiles";

struct FileId {
  uint64_t inode = 0;
  uint32_t major = 0;
  uint32_t minor = 0;
  bool is_directory = false;
  bool operator==(const FileId&) const = default;
};

FileId FileIdOf(const struct statx& info) {
  return {info.stx_ino, info.stx_dev_major, info.stx_dev_minor, S_ISDIR(info.stx_mode)};
}

// `sync`: AT_STATX_DONT_SYNC asks no server of a file system; one that was never asked has told
// nothing.
Result<FileId> IdOf(const std::string& path, int sync) {
  struct statx info;
  if (statx(AT_FDCWD, path.c_str(), sync, STATX_INO | STATX_TYPE, &info) != 0) {
    return Status::FromErrno(errno, path);
  }
  return FileIdOf(info);
}

Result<FileId> IdOfDevice(const std::string& path) {
  const Result<FileId> id = IdOf(path, AT_STATX_SYNC_AS_STAT);
  if (!id.ok()) {
    return Status(id.status().error(), "the cachefiles device " + id.status().message() +
                                           "; start an instance with --cachefiles-device=" + path +
                                           ", or give the path of its device");
  }
  if (id->inode == fusefs::kDeviceInode) return id;
  return Status(EINVAL, path +
                            " is not the cachefiles device of a holdfastd; give "
                            "--cachefiles-device=PATH, the path that it was started with");
}

// What mounts at `path` are made on.
Result<MountEntry> MountBelow(const std::string& path) {
  const UniqueFd at(open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!at.valid()) return Status::FromErrno(errno, path);
  ASSIGN_OR_RETURN(const int id, cachecore::MountIdOf(at.get()));
  ASSIGN_OR_RETURN(const std::vector<MountEntry> table, cachecore::ReadMountTable());
  const MountEntry* const mount = cachecore::FindMountById(table, id);
  if (mount != nullptr) return *mount;
  return Status(EINVAL, "the mount that " + path +
                            " lies on is not below this root directory; make the root directory a "
                            "mount point");
}

Status Unshare() {
  if (unshare(CLONE_NEWNS) == 0) return Status();
  return Status::FromErrno(errno, "making a mount namespace, which needs CAP_SYS_ADMIN");
}

// Enters a new mount namespace and runs `mount_there`, whose mounts at `path` stay in it although the
// mount below them is one of a peer group, as systemd makes all of the host's.
Status MountUnshared(const std::string& path, const std::function<Status()>& mount_there) {
  ASSIGN_OR_RETURN(const MountEntry below, MountBelow(path));
  const char* const point = below.mount_point.c_str();
  const UniqueFd peer(open(point, O_PATH | O_CLOEXEC));
  if (!peer.valid()) return Status::FromErrno(errno, below.mount_point);
  // The namespace, and so `peer`, would end with its last process, which this one may be.
  const UniqueFd host(open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC));
  if (!host.valid()) return Status::FromErrno(errno, "/proc/self/ns/mnt");
  RETURN_IF_ERROR(Unshare());
  if (below.peer_group == 0) return mount_there();
  const UniqueFd ours(open(point, O_PATH | O_CLOEXEC));
  if (!ours.valid() || mount(nullptr, point, nullptr, MS_PRIVATE, nullptr) != 0) {
    return Status::FromErrno(errno, "making " + below.mount_point + " private for a moment");
  }
  RETURN_IF_ERROR(mount_there());
  // Back into its peer group: later mounts on it reach the host, and the host's come here.
  if (move_mount(peer.get(), "", ours.get(), "",
                 MOVE_MOUNT_SET_GROUP | MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) != 0) {
    return Status::FromErrno(errno, "sharing " + below.mount_point + " with the host again");
  }
  return Status();
}

// What `path` shows, as a mount that is nowhere yet.
Result<UniqueFd> Clone(int directory, const std::string& path, unsigned flags) {
  UniqueFd clone(open_tree(directory, path.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | flags));
  if (!clone.valid()) return Status::FromErrno(errno, "binding " + path);
  return clone;
}

Status Attach(const UniqueFd& clone, const std::string& path) {
  if (move_mount(clone.get(), "", AT_FDCWD, path.c_str(), MOVE_MOUNT_F_EMPTY_PATH) == 0) {
    return Status();
  }
  return Status::FromErrno(errno, "mounting at " + path);
}

// Makes an entry of the covered /dev visible in the new one.
Status ShowEntry(const UniqueFd& covered, const std::string& name) {
  const std::string path = std::string(kDirectory) + "/" + name;
  struct statx info;
  // The server of a file system that is mounted there is not asked: it may not answer.
  if (statx(covered.get(), name.c_str(), AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC,
            STATX_TYPE, &info) != 0) {
    return errno == ENOENT ? Status() : Status::FromErrno(errno, path);
  }
  if (S_ISLNK(info.stx_mode)) {
    std::string target(PATH_MAX, 0);
    const ssize_t size = readlinkat(covered.get(), name.c_str(), target.data(), target.size());
    if (size < 0) return errno == ENOENT ? Status() : Status::FromErrno(errno, path);
    target.resize(static_cast<size_t>(size));
    if (symlink(target.c_str(), path.c_str()) == 0) return Status();
    return Status::FromErrno(errno, "making " + path);
  }
  const bool is_directory = S_ISDIR(info.stx_mode);
  const Result<UniqueFd> clone =
      Clone(covered.get(), name, AT_SYMLINK_NOFOLLOW | (is_directory ? AT_RECURSIVE : 0u));
  if (!clone.ok()) return clone.status().error() == ENOENT ? Status() : clone.status();
  if ((is_directory ? mkdir(path.c_str(), 0755) : mknod(path.c_str(), S_IFREG | 0600, 0)) != 0) {
    return Status::FromErrno(errno, "making " + path);
  }
  return Attach(*clone, path);
}

// A /dev in which kCachefilesPath is an ordinary file, and all else as it was.
Status CoverDirectory() {
  const UniqueFd covered(open(kDirectory, O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!covered.valid()) return Status::FromErrno(errno, kDirectory);
  const std::vector<std::string> names = cachecore::ListDirectory(kDirectory);
  if (mount("holdfast", kDirectory, "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755") != 0) {
    return Status::FromErrno(errno, "mounting a tmpfs at /dev");
  }
  for (const std::string& name : names) {
    if (name != kName) RETURN_IF_ERROR(ShowEntry(covered, name));
  }
  if (mknod(kCachefilesPath, S_IFREG | 0600, 0) == 0) return Status();
  return Status::FromErrno(errno, std::string("making ") + kCachefilesPath);
}

}  // namespace

Status EnterWithDevice(const std::string& device) {
  ASSIGN_OR_RETURN(const FileId wanted, IdOfDevice(device));
  const Result<FileId> there = IdOf(kCachefilesPath, AT_STATX_DONT_SYNC);
  // Without a mount of ours, a device that its instance mounts there later is seen.
  if (there.ok() && *there == wanted) return Unshare();
  const bool is_file = there.ok() && !there->is_directory;
  return MountUnshared(is_file ? kCachefilesPath : kDirectory, [&]() -> Status {
    ASSIGN_OR_RETURN(const UniqueFd clone, Clone(AT_FDCWD, device, 0));
    // The path may lead elsewhere by now.
    struct statx info;
    if (statx(clone.get(), "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO | STATX_TYPE, &info) !=
            0 ||
        FileIdOf(info) != wanted) {
      return Status(ESTALE, device + " was replaced meanwhile");
    }
    if (!is_file) RETURN_IF_ERROR(CoverDirectory());
    return Attach(clone, kCachefilesPath);
  });
}

}  // namespace host
