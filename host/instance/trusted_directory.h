// TrustedDirectory: whether only root can change what a path leads to.
//
// Model    every directory on the way belongs to root or to us, and others may write in none of
//          them, unless it is sticky as /tmp is; symbolic links on the way are root's or ours.  In
//          no other user may write to the directory itself: so nothing inside can be a link that
//          another user made.
// Errors   EPERM names the directory, what is wrong with it, and the cure.
// Threads  thread-safe: no state.

#ifndef HOST_INSTANCE_TRUSTED_DIRECTORY_H_
#define HOST_INSTANCE_TRUSTED_DIRECTORY_H_

#include <string>

#include "cachecore/base/status.h"

namespace host {

// REQUIRES: `path` is absolute and exists.
cachecore::Status CheckTrusted(const std::string& path);
// Makes it and its missing parents, checks it, and takes away what `mode` does not allow.
cachecore::Status MakeTrustedDirectory(const std::string& path, mode_t mode);

}  // namespace host

#endif  // HOST_INSTANCE_TRUSTED_DIRECTORY_H_
