// TrustedDirectory: whether nobody but root can change what a path leads to.
//
// Model    every directory on the way belongs to root or to us, and others may write in none of
//          them, unless it is sticky as /tmp is; symbolic links on the way are root's or ours.  In
//          the directory itself nobody else may write at all: so nothing inside can be a link that
//          somebody else made.
// Errors   EPERM names the directory, what is wrong with it, and the cure.
// Threads  thread-safe: no state.

#ifndef CLI_TRUSTED_DIRECTORY_H_
#define CLI_TRUSTED_DIRECTORY_H_

#include <string>

#include "cachecore/status.h"

namespace cli {

// REQUIRES: `path` is absolute and exists.
cachecore::Status CheckTrusted(const std::string& path);
// Makes it, its missing parents and checks it.
cachecore::Status MakeTrustedDirectory(const std::string& path, mode_t mode);

}  // namespace cli

#endif  // CLI_TRUSTED_DIRECTORY_H_
