#include "fusefs/server/fuse_mount.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <fstream>

namespace fusefs {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

namespace {

// Of the FUSE device, in the kernel's list of devices.
constexpr unsigned kMiscMajor = 10;
constexpr unsigned kFuseMinor = 229;

}  // namespace

Result<UniqueFd> OpenFuse() {
  UniqueFd fd(open("/dev/fuse", O_RDWR | O_CLOEXEC));
  struct stat info;
  if (fd.valid() && fstat(fd.get(), &info) == 0 && S_ISCHR(info.st_mode) &&
      info.st_rdev == makedev(kMiscMajor, kFuseMinor)) {
    return fd;
  }
  const int error = fd.valid() ? ENODEV : errno;
  const char* cure = "";
  if (error == ENOENT || error == ENODEV || error == ENXIO) {
    cure =
        ": load the kernel's FUSE module (modprobe fuse), or give the container the device "
        "(--device /dev/fuse)";
  } else if (error == EACCES || error == EPERM) {
    cure = ": /dev must not be mounted nodev, and a container needs --device /dev/fuse";
  }
  return Status(error, Status::FromErrno(error, "opening /dev/fuse").message() + cure);
}

Status DetachDeadMount(const std::string& directory) {
  struct statx attr;
  // ENOTCONN: the kernel's word for a mount whose server is gone for good.  What the kernel still
  // knows of such a mount says nothing.
  while (statx(AT_FDCWD, directory.c_str(), AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &attr) != 0 &&
         errno == ENOTCONN) {
    LOG(WARNING) << "detaching a dead mount of an earlier life at " << directory;
    if (umount2(directory.c_str(), MNT_DETACH) != 0) {
      return Status::FromErrno(errno, "detaching the dead mount at " + directory);
    }
  }
  return Status();
}

Status MountFuse(const std::string& directory, int fuse) {
  if (mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return Status::FromErrno(errno, "making the mount point " + directory);
  }
  const std::string options =
      "fd=" + std::to_string(fuse) +
      ",rootmode=40700,user_id=0,group_id=0,allow_other,default_permissions";
  if (mount("holdfast", directory.c_str(), "fuse.holdfast",
            MS_RDONLY | MS_NODEV | MS_NOSUID | MS_NOATIME, options.c_str()) != 0) {
    return Status::FromErrno(errno, "mounting FUSE at " + directory);
  }
  return Status();
}

void RaiseKernelReadAhead(const std::string& directory, int kilobytes) {
  struct stat attr;
  if (stat(directory.c_str(), &attr) != 0) return;  // It waits for the answer to INIT.
  const std::string path = "/sys/class/bdi/" + std::to_string(major(attr.st_dev)) + ":" +
                           std::to_string(minor(attr.st_dev)) + "/read_ahead_kb";
  std::ofstream file(path);
  if (!(file << kilobytes << std::flush)) {
    LOG(INFO) << "kernel read-ahead stays at its default: " << path << " cannot be written";
  }
}

Status UnmountFuse(const std::string& directory) {
  if (umount2(directory.c_str(), 0) == 0 || errno == EINVAL) return Status();
  return Status::FromErrno(errno, "unmounting " + directory);
}

}  // namespace fusefs
