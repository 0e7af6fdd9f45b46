#include "cachecore/system/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <string_view>
#include <utility>

#include "cachecore/system/pid_stamp.h"

namespace cachecore {
namespace {

using nlohmann::json;

// Of a file that is being written, and then its writer's PidStamp.
constexpr std::string_view kNewSuffix = ".new";

Status WriteAll(int fd, const std::string& contents, const std::string& path) {
  size_t done = 0;
  while (done < contents.size()) {
    const ssize_t n = write(fd, contents.data() + done, contents.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Status::FromErrno(errno, "write " + path);
    done += static_cast<size_t>(n);
  }
  return {};
}

}  // namespace

Result<std::string> ReadFile(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return Status::FromErrno(errno, "open " + path);
  std::string contents;
  char buffer[16384];
  for (;;) {
    const ssize_t n = read(fd.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Status::FromErrno(errno, "read " + path);
    if (n == 0) return contents;
    contents.append(buffer, static_cast<size_t>(n));
  }
}

Result<json> ReadJsonFile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  json value = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!value.is_object()) return Status(EBADMSG, path + " is not a JSON object");
  return value;
}

Status WriteFileAtomically(const std::string& path, const std::string& contents, mode_t mode) {
  const std::string temporary = path + std::string(kNewSuffix) + OwnPidStamp('.');
  unlink(temporary.c_str());
  UniqueFd fd(open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  if (!fd.valid()) return Status::FromErrno(errno, "create " + temporary);
  Status status = WriteAll(fd.get(), contents, temporary);
  if (status.ok() && fsync(fd.get()) != 0) status = Status::FromErrno(errno, "fsync " + temporary);
  if (status.ok() && rename(temporary.c_str(), path.c_str()) != 0) {
    status = Status::FromErrno(errno, "rename to " + path);
  }
  if (!status.ok()) unlink(temporary.c_str());
  return status;
}

void RemoveAbandonedWrites(const std::string& directory) {
  for (const std::string& name : ListDirectory(directory)) {
    const size_t suffix = name.rfind(kNewSuffix);
    if (suffix == std::string::npos) continue;
    const std::string writer = name.substr(suffix + kNewSuffix.size());
    const PidStamp stamp = ParsePidStamp(writer);
    const bool is_one =
        stamp.pid != 0 && writer.find_first_not_of("0123456789.") == std::string::npos;
    if (is_one && !IsThere(stamp)) unlink(std::string(directory).append("/").append(name).c_str());
  }
}

Status CreateFileExclusively(const std::string& path, const std::string& contents, mode_t mode) {
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  if (!fd.valid()) return Status::FromErrno(errno, "create " + path);
  Status status = WriteAll(fd.get(), contents, path);
  if (!status.ok()) unlink(path.c_str());
  return status;
}

Status MakeDirectories(const std::string& path, mode_t mode) {
  for (size_t slash = path.find('/', 1); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    const std::string parent = path.substr(0, slash);
    if (mkdir(parent.c_str(), 0755) != 0 && errno != EEXIST) {
      return Status::FromErrno(errno, "create directory " + parent);
    }
  }
  if (mkdir(path.c_str(), mode) == 0) return {};
  if (errno != EEXIST) return Status::FromErrno(errno, "create directory " + path);
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return Status::FromErrno(errno, path);
  if (!S_ISDIR(info.st_mode)) return Status(ENOTDIR, path + " is in the way: not a directory");
  return {};
}

Status MakePrivateDirectory(const std::string& path) {
  RETURN_IF_ERROR(MakeDirectories(path, 0700));
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat info;
  if (!fd.valid() || fstat(fd.get(), &info) != 0) return Status::FromErrno(errno, path);
  if (info.st_uid != geteuid()) {
    return Status(EPERM,
                  path + " belongs to uid " + std::to_string(info.st_uid) + "; it must be root's");
  }
  if ((info.st_mode & 07777) == 0700) return {};
  return fchmod(fd.get(), 0700) == 0 ? Status() : Status::FromErrno(errno, "chmod " + path);
}

std::vector<std::string> ListDirectory(const std::string& path) {
  std::vector<std::string> names;
  std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(path.c_str()), closedir);
  if (!directory) return names;
  while (const dirent* entry = readdir(directory.get())) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool IsRootDirectory(const std::string& path) {
  // "//" of a path has no other meaning here, as everywhere on Linux.
  if (std::filesystem::path(path).lexically_normal().relative_path().empty()) return true;
  struct stat info, root;
  return stat(path.c_str(), &info) == 0 && stat("/", &root) == 0 && info.st_dev == root.st_dev &&
         info.st_ino == root.st_ino;
}

namespace {

// `lock` takes the lock of an open directory.
Result<UniqueFd> LockDirectoryBy(const std::function<Status(int fd)>& lock, const std::string& path,
                                 mode_t mode) {
  for (;;) {
    RETURN_IF_ERROR(MakeDirectories(path, mode));
    UniqueFd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd.valid() && errno == ENOENT) continue;  // Its last holder has just removed it.
    if (!fd.valid()) return Status::FromErrno(errno, "open " + path);
    RETURN_IF_ERROR(lock(fd.get()).WithContext("lock " + path));
    struct stat locked, named;
    if (fstat(fd.get(), &locked) == 0 && stat(path.c_str(), &named) == 0 &&
        locked.st_ino == named.st_ino && locked.st_dev == named.st_dev) {
      return fd;
    }
  }
}

}  // namespace

Result<UniqueFd> LockDirectory(const std::string& path, mode_t mode) {
  const auto wait = [](int fd) {
    return flock(fd, LOCK_EX) == 0 ? Status() : Status::FromErrno(errno, "flock");
  };
  return LockDirectoryBy(wait, path, mode);
}

Result<UniqueFd> LockDirectory(const std::string& path, mode_t mode, const Deadline& deadline) {
  const auto wait = [&deadline](int fd) {
    return WaitUntil([fd] { return flock(fd, LOCK_EX | LOCK_NB) == 0; }, deadline);
  };
  return LockDirectoryBy(wait, path, mode);
}

Result<UniqueFd> TryLockDirectory(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) return Status::FromErrno(errno, path);
  if (flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return fd;
  if (errno == EWOULDBLOCK) return Status(EBUSY, path + " is in use");
  return Status::FromErrno(errno, "lock " + path);
}

}  // namespace cachecore
