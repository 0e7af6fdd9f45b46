#include "cachecore/system/pinned_file.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "cachecore/system/trusted_path.h"

namespace cachecore {
namespace {

// A path of which nothing was opened yet: O_PATH.
Result<UniqueFd> ResolveWithoutLinks(int directory, const char* name, const std::string& path) {
  open_how how = {};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_BENEATH;
  UniqueFd fd;
  do {
    fd.Reset(static_cast<int>(syscall(SYS_openat2, directory, name, &how, sizeof(how))));
  } while (!fd.valid() && errno == EAGAIN);  // A directory on the way was renamed meanwhile.
  if (fd.valid()) return fd;
  if (errno == ELOOP || errno == EXDEV) {
    return Status(ELOOP, path + ": a symbolic link on the way to it is not followed");
  }
  return Status::FromErrno(errno, path);
}

Result<UniqueFd> Resolve(const FilePin& pin) {
  // openat2 cannot be told whose links to follow, and is refused by seccomp filters that cannot see
  // its flags, as systemd's RestrictSUIDSGID= cannot.
  const bool follows = pin.links == FilePin::Links::kOfOwner;
  if (follows) return OpenTrustedPath(pin.path, {.user = pin.owner});
  const UniqueFd root(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  Result<UniqueFd> found = ResolveWithoutLinks(root.get(), pin.path.c_str() + 1, pin.path);
  if (found.status().error() == ENOSYS) return OpenTrustedPath(pin.path, {.follows_links = false});
  return found;
}

// Opens the regular file that `found`, an O_PATH descriptor, is.
Result<UniqueFd> OpenFound(const UniqueFd& found, const struct stat& info,
                           const std::string& path) {
  if (S_ISDIR(info.st_mode)) return Status(EISDIR, path + ": not a regular file");
  if (!S_ISREG(info.st_mode)) return Status(EINVAL, path + ": not a regular file");
  const std::string self = "/proc/self/fd/" + std::to_string(found.get());
  UniqueFd fd(open(self.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd.valid()) return Status::FromErrno(errno, path);
  return fd;
}

}  // namespace

Result<UniqueFd> OpenPinnedFile(const FilePin& pin) {
  if (pin.path.size() < 2 || pin.path[0] != '/') {
    return Status(EINVAL, pin.path + ": not an absolute path");
  }
  ASSIGN_OR_RETURN(const UniqueFd found, Resolve(pin));
  struct stat info;
  if (fstat(found.get(), &info) != 0) return Status::FromErrno(errno, pin.path);
  if (info.st_uid != pin.owner) {
    return Status(EPERM, pin.path + ": belongs to uid " + std::to_string(info.st_uid) +
                             " now, to " + std::to_string(pin.owner) +
                             " when it was mounted; mount it again if that is meant");
  }
  if (pin.inode != 0 && info.st_ino != pin.inode) {
    return Status(ESTALE, pin.path + ": another file (inode " + std::to_string(info.st_ino) +
                              ") than when it was mounted (" + std::to_string(pin.inode) + ")");
  }
  return OpenFound(found, info, pin.path);
}

Result<UniqueFd> OpenRegularBeneath(const std::string& directory, const std::string& name) {
  const std::string path = directory + (directory.ends_with('/') ? "" : "/") + name;
  const UniqueFd at(open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!at.valid()) return Status::FromErrno(errno, path);
  ASSIGN_OR_RETURN(const UniqueFd found, ResolveWithoutLinks(at.get(), name.c_str(), path));
  struct stat info;
  if (fstat(found.get(), &info) != 0) return Status::FromErrno(errno, path);
  return OpenFound(found, info, path);
}

}  // namespace cachecore
