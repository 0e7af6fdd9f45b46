#include "host/instance/lock_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <iostream>

#include "cachecore/system/files.h"
#include "cachecore/system/pid_stamp.h"

namespace host {
namespace {

using cachecore::Deadline;
using cachecore::IsThere;
using cachecore::kPidStampBytesMax;
using cachecore::MakeDirectories;
using cachecore::OwnPidStamp;
using cachecore::ParsePidStamp;
using cachecore::PidStamp;
using cachecore::ReadFile;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
using cachecore::WaitUntil;
using std::chrono::milliseconds;

constexpr milliseconds kSilentWait{1000};
constexpr milliseconds kNoEnd{std::chrono::hours(24 * 365)};

Status CheckOurs(const UniqueFd& fd, const std::string& path, mode_t mode) {
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return Status::FromErrno(errno, path);
  if (info.st_uid != geteuid()) {
    return Status(EPERM, path + " belongs to user " + std::to_string(info.st_uid) +
                             ", not to user " + std::to_string(geteuid()) + "; remove it");
  }
  // It is ours, so that a wider mode is our umask's or an earlier version's.
  if ((info.st_mode & 07777) != mode && fchmod(fd.get(), mode) != 0) {
    return Status::FromErrno(errno, "chmod " + path);
  }
  return {};
}

Result<UniqueFd> OpenLock(const std::string& directory, const std::string& path) {
  RETURN_IF_ERROR(MakeDirectories(directory, 0700));
  const UniqueFd parent(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!parent.valid()) return Status::FromErrno(errno, "open " + directory);
  RETURN_IF_ERROR(CheckOurs(parent, directory, 0700));
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600));
  if (!fd.valid()) return Status::FromErrno(errno, "open " + path);
  RETURN_IF_ERROR(CheckOurs(fd, path, 0600));
  return fd;
}

// "process 12 (holdfast)", with its user where that is not ours.
std::string Holder(const UniqueFd& lock) {
  char text[kPidStampBytesMax] = {};
  const ssize_t size = pread(lock.get(), text, sizeof text, 0);
  const PidStamp stamp = ParsePidStamp({text, size > 0 ? static_cast<size_t>(size) : 0});
  if (stamp.pid == 0) return "another process";
  const std::string pid = std::to_string(stamp.pid);
  const Result<std::string> comm = ReadFile("/proc/" + pid + "/comm");
  struct stat info;
  if (!comm.ok() || stat(("/proc/" + pid).c_str(), &info) != 0 || !IsThere(stamp)) {
    return "a child of process " + pid + ", which is gone,";
  }
  std::string holder = "process " + pid + " (" + comm->substr(0, comm->find('\n')) + ")";
  if (info.st_uid != geteuid()) holder += " of user " + std::to_string(info.st_uid);
  return holder;
}

}  // namespace

Result<UniqueFd> HoldLock(const std::string& run_root, const std::string& name,
                          const std::optional<Deadline>& deadline) {
  const std::string directory = run_root + "/" + kLocksDirectory;
  const std::string path = directory + "/" + name + ".lock";
  ASSIGN_OR_RETURN(UniqueFd fd, OpenLock(directory, path));
  const auto locked = [&fd] { return flock(fd.get(), LOCK_EX | LOCK_NB) == 0; };
  const milliseconds limit = deadline ? deadline->Remaining() : kNoEnd;
  Status waited = WaitUntil(locked, Deadline(std::min(limit, kSilentWait)));
  if (waited.error() == ETIMEDOUT && limit > kSilentWait) {
    std::cerr << "holdfast: waiting for " << Holder(fd) << ", which holds " << path << "\n";
    waited = WaitUntil(locked, Deadline(limit - kSilentWait));
  }
  if (waited.error() == ETIMEDOUT) {
    return Status(ETIMEDOUT, Holder(fd) + " holds the lock " + path + " for longer than " +
                                 std::to_string(limit.count()) +
                                 " ms; wait for it (--timeout) or end it");
  }
  if (!waited.ok()) return std::move(waited).WithContext("lock " + path);
  const std::string text = OwnPidStamp(' ') + "\n";
  // On a full disk only the message about the holder is poorer.
  [[maybe_unused]] const int emptied = ftruncate(fd.get(), 0);
  [[maybe_unused]] const ssize_t written = pwrite(fd.get(), text.data(), text.size(), 0);
  return fd;
}

}  // namespace host
