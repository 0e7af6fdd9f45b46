// Small-file helpers: whole-file reads, atomic writes, directory trees and directory locks.
//
// Errors   every Status names the path.
// Threads  thread-safe: no state.
// Crash    WriteFileAtomically leaves the old file or the new one, never a part (also after a power
//          cut); CreateFileExclusively may leave an empty or partial file.

#ifndef CLI_FILES_H_
#define CLI_FILES_H_

#include <sys/types.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cachecore/status.h"
#include "cachecore/unique_fd.h"
#include "cli/deadline.h"

namespace cli {

cachecore::Result<std::string> ReadFile(const std::string& path);
// Parsed as a JSON object; EBADMSG when it isn't one.
cachecore::Result<nlohmann::json> ReadJsonFile(const std::string& path);
cachecore::Status WriteFileAtomically(const std::string& path, const std::string& contents,
                                      mode_t mode);
// EEXIST when there is one already.
cachecore::Status CreateFileExclusively(const std::string& path, const std::string& contents,
                                        mode_t mode);
// `path` and its missing parents; only `path` itself gets `mode`, parents are 0755.
cachecore::Status MakeDirectories(const std::string& path, mode_t mode);
// The same with mode 0700, also where there is one already; EPERM where that is not ours.
cachecore::Status MakePrivateDirectory(const std::string& path);
// Entries but "." and "..", sorted; none when the directory can't be read.
std::vector<std::string> ListDirectory(const std::string& path);

// Creates `path` if need be and holds an exclusive flock(2) on it until the result is closed.  The
// holder may remove the directory: whoever waited for it then makes a new one.
cachecore::Result<cachecore::UniqueFd> LockDirectory(const std::string& path, mode_t mode);
// The same, ETIMEDOUT when another process holds it for too long.
cachecore::Result<cachecore::UniqueFd> LockDirectory(const std::string& path, mode_t mode,
                                                     const Deadline& deadline);
// Of one that is there, without waiting: EBUSY when another process holds it.
cachecore::Result<cachecore::UniqueFd> TryLockDirectory(const std::string& path);

// A field of a JSON object, or `fallback` when it is absent or of another type: what another
// process wrote is never trusted to have the right shape.
std::string JsonString(const nlohmann::json& object, const char* key, std::string fallback = "");
int64_t JsonInt(const nlohmann::json& object, const char* key, int64_t fallback = 0);
bool JsonBool(const nlohmann::json& object, const char* key, bool fallback = false);
std::vector<std::string> JsonStrings(const nlohmann::json& object, const char* key);
// An empty object when absent.
const nlohmann::json& JsonField(const nlohmann::json& object, const char* key);
// One line of UTF-8 for a file or a socket; bytes that are not UTF-8 are replaced, not thrown
// about.
std::string JsonText(const nlohmann::json& value, int indent = -1);
// The same for what we read again ourselves, such as paths: each byte that is not UTF-8 becomes
// U+0000 and its two hexadecimal digits, which JsonString and JsonStrings turn back.
std::string RecordText(const nlohmann::json& value, int indent = -1);

}  // namespace cli

#endif  // CLI_FILES_H_
