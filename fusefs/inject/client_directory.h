// OpenDirectoryOf: a directory that a client names, as its thread would open it.
//
// Model    the path is looked up below the thread's root or working directory, and its file system
//          is asked how much it holds, in a thread of its own: a file system that never answers
//          costs its caller `patience`, and that thread for as long as it does not.
// Errors   the kernel's; ETIMEDOUT after `patience`, and at once while an earlier path has no
//          answer.
// Threads  thread-safe.
// See      docs/cachefiles-compat.md "What differs".

#ifndef FUSEFS_INJECT_CLIENT_DIRECTORY_H_
#define FUSEFS_INJECT_CLIENT_DIRECTORY_H_

#include <sys/types.h>

#include <chrono>
#include <string>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"

namespace fusefs {

cachecore::Result<cachecore::UniqueFd> OpenDirectoryOf(pid_t thread, const std::string& path,
                                                       std::chrono::milliseconds patience);

}  // namespace fusefs

#endif  // FUSEFS_INJECT_CLIENT_DIRECTORY_H_
