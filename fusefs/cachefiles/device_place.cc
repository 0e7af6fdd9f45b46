#include "fusefs/cachefiles/device_place.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <utility>

#include "cachecore/base/fault_point.h"
#include "fusefs/cachefiles/preload/device_calls.h"
#include "fusefs/server/fuse_mount.h"

namespace fusefs {

using cachecore::FaultPoint;
using cachecore::MadeFile;
using cachecore::Status;

namespace {

// Another daemon may take away what it has made there, between our look at it and our mount.
constexpr int kTries = 5;

// Of the file system that a path lies in, without a request to it.
std::optional<dev_t> DeviceAt(const std::string& path) {
  struct statx info;
  if (statx(AT_FDCWD, path.c_str(), AT_STATX_DONT_SYNC, 0, &info) != 0) return std::nullopt;
  return makedev(info.stx_dev_major, info.stx_dev_minor);
}

std::string Absolute(const std::string& path) {
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  return error ? path : absolute.string();
}

}  // namespace

DevicePlace::DevicePlace(std::string path, const std::string& run_dir)
    : path_(std::move(path)), run_dir_(run_dir), made_(MadeFile::RecordIn(run_dir)) {}

// What it is mounted on: a file that is there, or made.
Status DevicePlace::Obtain() {
  const std::string path = Absolute(path_);
  const Status made = made_.Make(path);
  if (made.error() == ENOENT) {
    const std::string directory = std::filesystem::path(path).parent_path().string();
    return Status(ENOENT, "the directory for the cachefiles device " + path_ +
                              " does not exist; create it: mkdir -p " + directory);
  }
  RETURN_IF_ERROR(made);
  FaultPoint(cachecore::Fault::kCachefilesMade);
  struct stat info;
  if (stat(path_.c_str(), &info) != 0) {
    return Status::FromErrno(errno, "looking at " + path_ + " for the cachefiles device");
  }
  if (!S_ISREG(info.st_mode) && !(S_ISSOCK(info.st_mode) && MadeFile::IsAbandoned(path_))) {
    return Status(EINVAL, path_ +
                              " is not a regular file; --cachefiles-device names a file, or "
                              "one that does not exist yet");
  }
  if (info.st_ino == kDeviceInode) {
    return Status(EBUSY, path_ +
                             " is the cachefiles device of another holdfastd; give each a "
                             "--cachefiles-device of its own");
  }
  return Status();
}

Status DevicePlace::Mount(int fuse, DeviceMemory* memory) {
  EndEarlier(run_dir_);
  const auto note = [&](dev_t device) {
    memory->PutMount({device, 0, path_});
    memory->Commit();
  };
  const std::string options = "fd=" + std::to_string(fuse) +
                              ",rootmode=100666,user_id=0,group_id=0,allow_other,"
                              "default_permissions";
  for (int tries = 1;; ++tries) {
    RETURN_IF_ERROR(DetachDeadMount(path_));
    const Status obtained = Obtain();
    if (!obtained.ok() && (obtained.error() != ENOENT || tries == kTries)) return obtained;
    note(0);
    if (mount("holdfast", path_.c_str(), "fuse.holdfast-cachefiles",
              MS_NODEV | MS_NOSUID | MS_NOEXEC | MS_NOATIME, options.c_str()) == 0) {
      break;
    }
    if (errno != ENOENT || tries == kTries) {
      return Status::FromErrno(errno, "mounting the cachefiles device at " + path_);
    }
  }
  device_ = DeviceAt(path_);
  note(device_.value_or(0));
  FaultPoint(cachecore::Fault::kCachefilesMounted);
  return Status();
}

void DevicePlace::Resume(const MountRecord& mounted) {
  device_ = mounted.device != 0 ? mounted.device : DeviceAt(path_);
  is_older_ = mounted.made_file != 0;
}

void DevicePlace::End(bool is_cut_off) {
  if (is_cut_off) {
    const Status detached = DetachDeadMount(path_);
    if (!detached.ok()) LOG(ERROR) << detached.message();
  } else if (device_ && device_ == DeviceAt(path_)) {
    umount2(path_.c_str(), MNT_DETACH);
  }
  device_.reset();
  made_.Remove();
  struct stat info;
  if (std::exchange(is_older_, false) && lstat(path_.c_str(), &info) == 0 &&
      S_ISREG(info.st_mode) && info.st_size == 0 && info.st_ino != kDeviceInode) {
    unlink(path_.c_str());
  }
}

void DevicePlace::EndEarlier(const std::string& run_dir) {
  const MadeFile made(MadeFile::RecordIn(run_dir));
  const std::string path = made.Path();
  if (path.empty()) return;
  const Status detached = DetachDeadMount(path);
  if (!detached.ok()) LOG(ERROR) << detached.message();
  made.Remove();
}

}  // namespace fusefs
