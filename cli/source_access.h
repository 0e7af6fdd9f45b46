// Who may read the sources of an instance: root, and the user that its fetcher runs as.
//
// Model    that user is whoever the daemon has given its device socket to.  If it isn't root, its
//          group is given the sources directory, and by the setgid bit every file that is written
//          there from then on.
// Errors   the errno of what can't be changed, with its path.
// Threads  thread-safe: no state.

#ifndef CLI_SOURCE_ACCESS_H_
#define CLI_SOURCE_ACCESS_H_

#include <sys/types.h>

#include "cachecore/status.h"
#include "cli/instance.h"

namespace cli {

// Of a source file.
inline constexpr mode_t kSourceMode = 0640;

// REQUIRES: the instance runs, and its sources directory exists.
cachecore::Status ShareSources(const Instance& instance);

}  // namespace cli

#endif  // CLI_SOURCE_ACCESS_H_
