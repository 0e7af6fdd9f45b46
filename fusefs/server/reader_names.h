// ReaderOf: whose read it is, by the kernel's /proc.
//
// Errors   none: what is gone, or of another pid namespace, has no name.
// Threads  thread-safe: no state.
// Cost     a small file of /proc, some 20 us: for a read that has to wait.

#ifndef FUSEFS_SERVER_READER_NAMES_H_
#define FUSEFS_SERVER_READER_NAMES_H_

#include <sys/types.h>

#include "cachecore/cache/cache.h"

namespace fusefs {

// `thread`: as a FUSE request names it.
cachecore::Reader ReaderOf(pid_t thread);

}  // namespace fusefs

#endif  // FUSEFS_SERVER_READER_NAMES_H_
