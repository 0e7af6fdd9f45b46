// LockFile: locks that only root's commands can take, and that name their holder.
//
// Model    RUN_ROOT/.locks/NAME.lock, mode 0600 in a directory of mode 0700: no other user can open
//          one, so none can hold it.  The holder's pid is written in it.
// Errors   ETIMEDOUT names the process that holds it; EPERM: the directory or the file is not ours.
// Threads  thread-safe: no state.
// Crash    a lock goes with its holder; the file stays, empty of meaning.

#ifndef HOST_INSTANCE_LOCK_FILE_H_
#define HOST_INSTANCE_LOCK_FILE_H_

#include <optional>
#include <string>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"

namespace host {

// In the directory of all instances; an instance can't have this name.
inline constexpr char kLocksDirectory[] = ".locks";

// Holds the lock `name` of `run_root` until the result is closed.  Without a deadline it waits
// until the holder releases it or a signal comes, and says on stderr for which process it waits.
cachecore::Result<cachecore::UniqueFd> HoldLock(const std::string& run_root,
                                                const std::string& name,
                                                const std::optional<cachecore::Deadline>& deadline);

}  // namespace host

#endif  // HOST_INSTANCE_LOCK_FILE_H_
