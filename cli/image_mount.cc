#include "cli/image_mount.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "cachecore/unique_fd.h"
#include "cli/bounded_call.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

constexpr int kLoopAttemptsMax = 64;  // Others may take the free device we were told of.

struct LoopDevice {
  std::string path;
  UniqueFd fd;  // The device clears itself at the last close, so it is kept until mounted.
};

Result<LoopDevice> AttachLoop(const std::string& image) {
  UniqueFd backing(open(image.c_str(), O_RDONLY | O_CLOEXEC));
  if (!backing.valid()) return Status::FromErrno(errno, image);
  UniqueFd control(open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  if (!control.valid()) {
    return Status::FromErrno(errno,
                             "no loop device (this kernel can't mount EROFS from a file "
                             "there): /dev/loop-control");
  }
  for (int attempt = 0; attempt < kLoopAttemptsMax; ++attempt) {
    const int number = ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) return Status::FromErrno(errno, "find a free loop device");
    LoopDevice device;
    device.path = "/dev/loop" + std::to_string(number);
    device.fd.Reset(open(device.path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!device.fd.valid()) return Status::FromErrno(errno, device.path);
    loop_config config = {};
    config.fd = static_cast<uint32_t>(backing.get());
    config.info.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR;
    std::strncpy(reinterpret_cast<char*>(config.info.lo_file_name), image.c_str(),
                 LO_NAME_SIZE - 1);
    if (ioctl(device.fd.get(), LOOP_CONFIGURE, &config) == 0) return device;
    if (errno != EBUSY) return Status::FromErrno(errno, "set up " + device.path);
  }
  return Status(EBUSY, "every free loop device was taken by somebody else");
}

Status MountErofsFrom(const std::string& source, const std::string& mount_point,
                      const std::string& options) {
  if (mount(source.c_str(), mount_point.c_str(), "erofs", MS_RDONLY, options.c_str()) == 0) {
    return {};
  }
  const int error = errno;
  if (error == ENODEV) {
    return Status(ENODEV, "this kernel has no EROFS; load it (modprobe erofs), or use --as=file");
  }
  Status status = Status::FromErrno(error, "the kernel refused to mount the EROFS image");
  if (error != EINVAL) return status;
  return Status(EINVAL, status.message() + " (dmesg says why; --as=file shows it as a file)");
}

Result<std::string> MountOnNewLoop(const std::string& image, const std::string& mount_point,
                                   const std::string& options) {
  ASSIGN_OR_RETURN(const LoopDevice loop, AttachLoop(image));
  RETURN_IF_ERROR(MountErofsFrom(loop.path, mount_point, options));
  return loop.path;
}

// A mount nobody can list isn't usable; listing also brings the bytes of the root directory.
Status ListOnce(const std::string& directory) {
  const std::unique_ptr<DIR, int (*)(DIR*)> open_directory(opendir(directory.c_str()), closedir);
  errno = 0;
  if (open_directory) readdir(open_directory.get());
  if (errno != 0) return Status::FromErrno(errno, "list " + directory);
  return {};
}

// Runs `mount_it` in a child and undoes whatever it did should it fail or be late.
Result<std::string> MountOrUndo(const std::function<Result<std::string>()>& mount_it,
                                const std::string& mount_point, const Deadline& deadline) {
  const auto mount_and_list = [&]() -> Result<std::string> {
    ASSIGN_OR_RETURN(std::string device, mount_it());
    RETURN_IF_ERROR(ListOnce(mount_point));
    return device;
  };
  Result<std::string> device = CallInChild(mount_and_list, deadline);
  if (!device.ok()) {
    const Result<std::vector<MountEntry>> table = ReadMountTable();
    const MountEntry* entry = table.ok() ? FindMount(*table, mount_point) : nullptr;
    if (entry != nullptr && IsOwnMount(*entry)) umount2(mount_point.c_str(), MNT_DETACH);
  }
  return device;
}

}  // namespace

Result<std::string> ReadHead(const std::string& path, size_t length, const Deadline& deadline) {
  const auto read_it = [&]() -> Result<std::string> {
    UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd.valid()) return Status::FromErrno(errno, "open");
    std::string head(length, '\0');
    size_t done = 0;
    while (done < length) {
      const ssize_t n =
          pread(fd.get(), head.data() + done, length - done, static_cast<off_t>(done));
      if (n < 0 && errno == EINTR && !StopSignalled()) continue;
      if (n < 0) return Status::FromErrno(errno, "read");
      if (n == 0) break;
      done += static_cast<size_t>(n);
    }
    head.resize(done);
    return head;
  };
  return CallInChild(read_it, deadline);
}

Result<std::string> MountErofs(const std::string& image, const std::string& mount_point,
                               const std::string& options, const Deadline& deadline) {
  const auto mount_it = [&]() -> Result<std::string> {
    const Status direct = MountErofsFrom(image, mount_point, options);
    if (direct.ok()) return image;
    if (direct.error() != ENOTBLK && direct.error() != EINVAL) return direct;
    return MountOnNewLoop(image, mount_point, options);
  };
  return MountOrUndo(mount_it, mount_point, deadline);
}

Result<std::string> MountErofsByLoop(const std::string& image, const std::string& mount_point,
                                     const std::string& options, const Deadline& deadline) {
  const auto mount_it = [&] { return MountOnNewLoop(image, mount_point, options); };
  return MountOrUndo(mount_it, mount_point, deadline);
}

Result<std::string> BindDirectory(const std::string& directory, const std::string& mount_point,
                                  const Deadline& deadline) {
  const auto mount_it = [&]() -> Result<std::string> {
    if (mount(directory.c_str(), mount_point.c_str(), nullptr, MS_BIND, nullptr) != 0) {
      return Status::FromErrno(errno, "bind " + directory);
    }
    if (mount(nullptr, mount_point.c_str(), nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr) !=
        0) {
      return Status::FromErrno(errno, "make " + mount_point + " read-only");
    }
    return directory;
  };
  return MountOrUndo(mount_it, mount_point, deadline);
}

bool IsOwnMount(const MountEntry& entry) {
  return entry.type == "erofs" || entry.type.starts_with("fuse");
}

void DetachAll(const std::string& path) {
  for (;;) {
    const Result<std::vector<MountEntry>> table = ReadMountTable();
    if (!table.ok() || FindMount(*table, path) == nullptr) return;
    if (umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0) return;
  }
}

}  // namespace cli
