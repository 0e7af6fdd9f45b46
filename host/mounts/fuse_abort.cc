#include "host/mounts/fuse_abort.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "cachecore/base/unique_fd.h"

namespace host {
namespace {

using cachecore::MountEntry;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

constexpr char kUsualMount[] = "/sys/fs/fuse/connections";

// A mount of fusectl that no other process sees: machines without systemd have none.
Result<UniqueFd> MountControl() {
  const UniqueFd context(fsopen("fusectl", FSOPEN_CLOEXEC));
  if (!context.valid()) return Status::FromErrno(errno, "open the file system fusectl");
  if (fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    return Status::FromErrno(errno, "set up the file system fusectl");
  }
  UniqueFd mount(fsmount(context.get(), FSMOUNT_CLOEXEC, 0));
  if (!mount.valid()) return Status::FromErrno(errno, "mount fusectl");
  return mount;
}

// 0, or the errno.
int Switch(int directory, const std::string& file) {
  const UniqueFd fd(openat(directory, file.c_str(), O_WRONLY | O_CLOEXEC));
  return fd.valid() && write(fd.get(), "1", 1) == 1 ? 0 : errno;
}

}  // namespace

Status AbortFuseConnection(const MountEntry& mount) {
  // The connection's name is the device's minor number; its major number is 0.
  const std::string file = mount.device.substr(mount.device.find(':') + 1) + "/abort";
  const UniqueFd usual(open(kUsualMount, O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (usual.valid() && Switch(usual.get(), file) == 0) return {};
  ASSIGN_OR_RETURN(const UniqueFd control, MountControl());
  const int error = Switch(control.get(), file);
  if (error == 0 || error == ENOENT) return {};
  return Status::FromErrno(error, "abort the FUSE connection of " + mount.mount_point);
}

}  // namespace host
