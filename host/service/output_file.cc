#include "host/service/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "cachecore/base/unique_fd.h"
#include "cachecore/system/pid_stamp.h"

namespace host {
namespace {

using cachecore::OwnPidStamp;
using cachecore::Status;
using cachecore::UniqueFd;

constexpr mode_t kModeBits = 07777;
constexpr int kLinksMax = 40;  // As the kernel has it.

bool IsSameFile(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

Status WriteAll(int fd, const std::string& text, const std::string& path) {
  for (size_t done = 0; done < text.size();) {
    const ssize_t n = write(fd, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Status::FromErrno(errno, "write " + path);
    done += static_cast<size_t>(n);
  }
  return {};
}

Status WriteInto(const std::string& path, const std::string& text) {
  const UniqueFd fd(open(path.c_str(), O_WRONLY | O_NOCTTY | O_CLOEXEC));
  if (!fd.valid()) return Status::FromErrno(errno, "open " + path);
  return WriteAll(fd.get(), text, path);
}

// The file that `path` names at the end of its links, which need not be there.
std::string EndOfLinks(const std::string& path) {
  std::filesystem::path place = path;
  std::error_code error;
  for (int i = 0; i < kLinksMax && std::filesystem::is_symlink(place, error); ++i) {
    const std::filesystem::path target = std::filesystem::read_symlink(place, error);
    if (error) break;
    place = place.parent_path() / target;  // An absolute target stands for itself.
  }
  return place.string();
}

Status GiveOwnerAndMode(int fd, const struct stat* old, mode_t new_mode, const std::string& path) {
  struct stat made;
  if (fstat(fd, &made) != 0) return Status::FromErrno(errno, "look at " + path);
  // The owner first: a change of it takes bits of the mode away.
  if (old != nullptr && (old->st_uid != made.st_uid || old->st_gid != made.st_gid) &&
      fchown(fd, old->st_uid, old->st_gid) != 0) {
    return Status(errno, path + " belongs to another user, and its owner could not be kept (" +
                             strerrordesc_np(errno) + "); run this as root, or name another file");
  }
  if (fchmod(fd, old != nullptr ? old->st_mode & kModeBits : new_mode) != 0) {
    return Status::FromErrno(errno, "set the mode of " + path);
  }
  return {};
}

// `old`: what is there; null: nothing.
Status Replace(const std::string& path, const struct stat* old, mode_t new_mode,
               const std::string& text) {
  const std::string temporary = path + ".new" + OwnPidStamp('.');
  unlink(temporary.c_str());
  const UniqueFd fd(open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd.valid()) return Status::FromErrno(errno, "create " + temporary);
  Status status = WriteAll(fd.get(), text, temporary);
  if (status.ok()) status = GiveOwnerAndMode(fd.get(), old, new_mode, path);
  if (status.ok() && fsync(fd.get()) != 0) status = Status::FromErrno(errno, "fsync " + temporary);
  if (status.ok() && rename(temporary.c_str(), path.c_str()) != 0) {
    status = Status::FromErrno(errno, "rename to " + path);
  }
  if (!status.ok()) unlink(temporary.c_str());
  return status;
}

}  // namespace

Status WriteOutput(const std::string& path, const std::string& text, mode_t new_mode) {
  struct stat info;
  // Through the kernel, which may refuse another user's link.
  const bool is_there = stat(path.c_str(), &info) == 0;
  if (!is_there && errno != ENOENT) return Status::FromErrno(errno, "look at " + path);
  if (path.ends_with('/') || (is_there && S_ISDIR(info.st_mode))) {
    const std::string directory = path.substr(0, path.find_last_not_of('/') + 1);
    return Status(EISDIR, path + " is a directory; name a file in it: " + directory + "/FILE");
  }
  if (!is_there) return Replace(EndOfLinks(path), nullptr, new_mode, text);
  struct stat standard;
  if (fstat(STDOUT_FILENO, &standard) == 0 && IsSameFile(info, standard)) {
    return WriteAll(STDOUT_FILENO, text, path);
  }
  if (!S_ISREG(info.st_mode)) return WriteInto(path, text);
  return Replace(EndOfLinks(path), &info, new_mode, text);
}

}  // namespace host
