#include "fusefs/fuse_mount.h"

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

Result<UniqueFd> OpenFuse() {
  UniqueFd fd(open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (!fd.valid()) return Status::FromErrno(errno, "opening /dev/fuse");
  return fd;
}

Status DetachDeadMount(const std::string& directory) {
  struct stat attr;
  // ENOTCONN: the kernel's word for a mount whose server is gone for good.
  while (stat(directory.c_str(), &attr) != 0 && errno == ENOTCONN) {
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
  if (stat(directory.c_str(), &attr) != 0) return;
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
