// OpenTrustedPath: opens what a path leads to, unless another user's symbolic link is on the way.
//
// Model    the path is walked by descriptors, a step at a time, so that what was looked at is what
//          is entered.  A symbolic link is followed if root or the trusted user owns it and no user
//          else can exchange it: the directory it lies in is root's or the trusted user's, and
//          others may not write there unless it is sticky, as in fs.protected_symlinks.  Files and
//          directories may be any user's.
// Errors   EACCES names the link, its owner and the cure; ELOOP too many links, or one where none
//          is followed; others of openat(2).
// Threads  thread-safe: no state.  Blocks on the file systems that the path leads through.
// See      symlink(7), proc_sys_fs(5)

#ifndef CACHECORE_SYSTEM_TRUSTED_PATH_H_
#define CACHECORE_SYSTEM_TRUSTED_PATH_H_

#include <sys/stat.h>
#include <sys/types.h>

#include <functional>
#include <string>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"

namespace cachecore {

struct PathTrust {
  uid_t user = 0;  // Whose links are followed beside root's.
  bool follows_links = true;
  // Asked about every step below "/", links included; its error ends the walk.
  std::function<Status(const std::string& path, const struct stat& info)> check = nullptr;
};

// O_PATH.  A relative path begins at the working directory.
Result<UniqueFd> OpenTrustedPath(const std::string& path, const PathTrust& trust);
// The path that the kernel has for it now, or that it had before it was removed.
std::string PathOfDescriptor(const UniqueFd& fd);
// Both: where a path leads, without symbolic links.  The links of the caller are followed.
Result<std::string> TrustedRealPath(const std::string& path);

}  // namespace cachecore

#endif  // CACHECORE_SYSTEM_TRUSTED_PATH_H_
