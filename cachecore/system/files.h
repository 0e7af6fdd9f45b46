// Small-file helpers: whole-file reads, atomic writes, directory trees and directory locks.
//
// Errors   every Status names the path.
// Threads  thread-safe: no state.
// Crash    WriteFileAtomically leaves the old file or the new one, never a part (also after a power
//          cut); CreateFileExclusively may leave an empty or partial file.

#ifndef CACHECORE_SYSTEM_FILES_H_
#define CACHECORE_SYSTEM_FILES_H_

#include <sys/types.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"

namespace cachecore {

Result<std::string> ReadFile(const std::string& path);
// Parsed as a JSON object; EBADMSG when it isn't one.
Result<nlohmann::json> ReadJsonFile(const std::string& path);
Status WriteFileAtomically(const std::string& path, const std::string& contents, mode_t mode);
// Removes what processes that are gone have left of a WriteFileAtomically.
void RemoveAbandonedWrites(const std::string& directory);
// EEXIST when there is one already.
Status CreateFileExclusively(const std::string& path, const std::string& contents, mode_t mode);
// `path` and its missing parents; only `path` itself gets `mode`, parents are 0755.
Status MakeDirectories(const std::string& path, mode_t mode);
// The same with mode 0700, also where there is one already; EPERM where another user owns it.
Status MakePrivateDirectory(const std::string& path);
// Entries but "." and "..", sorted; none when the directory can't be read.
std::vector<std::string> ListDirectory(const std::string& path);

// Whether the absolute `path` leads to the root directory, by name or by what is there.
bool IsRootDirectory(const std::string& path);

// Creates `path` if need be and holds an exclusive flock(2) on it until the result is closed.  The
// holder may remove the directory: a process that waited for it then makes a new one.
Result<UniqueFd> LockDirectory(const std::string& path, mode_t mode);
// The same, ETIMEDOUT when another process holds it for too long.
Result<UniqueFd> LockDirectory(const std::string& path, mode_t mode, const Deadline& deadline);
// Of one that is there, without waiting: EBUSY when another process holds it.
Result<UniqueFd> TryLockDirectory(const std::string& path);

}  // namespace cachecore

#endif  // CACHECORE_SYSTEM_FILES_H_
