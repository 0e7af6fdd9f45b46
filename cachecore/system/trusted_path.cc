#include "cachecore/system/trusted_path.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace cachecore {
namespace {

constexpr int kLinksMax = 40;  // As the kernel's.
constexpr int kStepFlags = O_PATH | O_NOFOLLOW | O_CLOEXEC;

// O_DIRECTORY has an automount done, which O_PATH alone does not.
UniqueFd OpenStep(const UniqueFd& at, const std::string& name) {
  UniqueFd step(openat(at.get(), name.c_str(), kStepFlags | O_DIRECTORY));
  if (!step.valid() && errno == ENOTDIR) step.Reset(openat(at.get(), name.c_str(), kStepFlags));
  return step;
}

// Links of /proc may lead where no path does.
bool IsOfProc(const UniqueFd& fd) {
  struct statfs info;
  return fstatfs(fd.get(), &info) == 0 && info.f_type == PROC_SUPER_MAGIC;
}

std::string UserText(uid_t user) { return user == 0 ? "root" : "user " + std::to_string(user); }

class Walk {
 public:
  Walk(const std::string& path, const PathTrust& trust)
      : path_(path),
        rest_(path),
        trust_(trust),
        at_(open(path.starts_with('/') ? "/" : ".", O_PATH | O_DIRECTORY | O_CLOEXEC)) {}

  Result<UniqueFd> Run() {
    if (path_.empty()) return Status::FromErrno(ENOENT, "\"\"");
    while (at_.valid()) {
      const size_t begin = rest_.find_first_not_of('/');
      if (begin == std::string::npos) return std::move(at_);
      const size_t end = std::min(rest_.find('/', begin), rest_.size());
      const std::string name = rest_.substr(begin, end - begin);
      rest_.erase(0, end);
      RETURN_IF_ERROR(Step(name));
    }
    return Status::FromErrno(errno, path_);
  }

 private:
  std::string ShownStep(const std::string& name) const {
    const std::string here = PathOfDescriptor(at_);
    return (here == "/" ? "" : here) + "/" + name;
  }

  Status Step(const std::string& name) {
    UniqueFd next = OpenStep(at_, name);
    struct stat info;
    if (!next.valid() || fstat(next.get(), &info) != 0) return Status::FromErrno(errno, path_);
    if (trust_.check && name != "." && name != "..") {
      RETURN_IF_ERROR(trust_.check(ShownStep(name), info));
    }
    if (S_ISLNK(info.st_mode)) return Follow(name, next, info);
    at_ = std::move(next);
    return {};
  }

  Status Follow(const std::string& name, const UniqueFd& link, const struct stat& info) {
    if (!trust_.follows_links) {
      return Status(ELOOP, path_ + ": a symbolic link on the way to it is not followed");
    }
    RETURN_IF_ERROR(CheckLink(ShownStep(name), info));
    if (++links_ > kLinksMax) return Status(ELOOP, path_ + ": too many symbolic links");
    if (IsOfProc(at_)) {
      at_.Reset(openat(at_.get(), name.c_str(), O_PATH | O_CLOEXEC));
      return at_.valid() ? Status() : Status::FromErrno(errno, path_);
    }
    std::string target(PATH_MAX, '\0');
    const ssize_t length = readlinkat(link.get(), "", target.data(), target.size());
    if (length <= 0) return Status::FromErrno(length < 0 ? errno : EINVAL, path_);
    target.resize(static_cast<size_t>(length));
    if (target[0] == '/') at_.Reset(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    rest_ = target + "/" + rest_;
    return {};
  }

  bool IsTrusted(uid_t user) const { return user == 0 || user == trust_.user; }

  // Whether root or the trusted user made it what it is: an owner does not show which user put it
  // there.
  Status CheckLink(const std::string& shown, const struct stat& info) const {
    const std::string cure = "; name what it leads to, or make the link in a directory of root";
    const std::string begin = "the symbolic link " + shown + " belongs to " + UserText(info.st_uid);
    if (!IsTrusted(info.st_uid)) return Status(EACCES, begin + " and is not followed" + cure);
    struct stat directory;
    if (fstat(at_.get(), &directory) != 0) return Status::FromErrno(errno, path_);
    if (!IsTrusted(directory.st_uid)) {
      return Status(EACCES, begin + " and is not followed in a directory of " +
                                UserText(directory.st_uid) + cure);
    }
    if ((directory.st_mode & (S_IWGRP | S_IWOTH)) == 0 || (directory.st_mode & S_ISVTX) != 0) {
      return {};
    }
    return Status(EACCES, begin + " and is not followed in a directory that others may write in" +
                              cure + ", or run: chmod go-w " + PathOfDescriptor(at_));
  }

  const std::string path_;
  std::string rest_;
  const PathTrust& trust_;
  UniqueFd at_;
  int links_ = 0;
};

}  // namespace

Result<UniqueFd> OpenTrustedPath(const std::string& path, const PathTrust& trust) {
  // The walk takes a step at a time and would never meet the kernel's limit.
  if (path.size() >= PATH_MAX) return Status::FromErrno(ENAMETOOLONG, path);
  return Walk(path, trust).Run();
}

std::string PathOfDescriptor(const UniqueFd& fd) {
  char target[PATH_MAX];
  const std::string self = "/proc/self/fd/" + std::to_string(fd.get());
  const ssize_t length = readlink(self.c_str(), target, sizeof target);
  return length > 0 ? std::string(target, static_cast<size_t>(length)) : "";
}

Result<std::string> TrustedRealPath(const std::string& path) {
  ASSIGN_OR_RETURN(const UniqueFd found, OpenTrustedPath(path, {.user = geteuid()}));
  std::string real = PathOfDescriptor(found);
  if (!real.starts_with('/')) return Status::FromErrno(ENOENT, path);
  return real;
}

}  // namespace cachecore
