// ExactIds: which programs without the preloaded library get the ids of messages as they are.
//
// Model    a process of `holdfast cachefiles-run --exact-ids` makes the READ_COMPLETE calls of the
//          programs that it was started with, and says so.  As long as it lives, each thread in its
//          mount namespace, which they have for themselves, is such a program.
// Errors   Register: 0, or a negative errno.
// Threads  the cachefiles thread.
// Crash    the DeviceMemory has the processes, for the next daemon.
// See      host/cachefiles/completer.h

#ifndef FUSEFS_CACHEFILES_EXACT_IDS_H_
#define FUSEFS_CACHEFILES_EXACT_IDS_H_

#include <sys/types.h>

#include "fusefs/cachefiles/device_memory.h"

namespace fusefs {

class ExactIds {
 public:
  explicit ExactIds(DeviceMemory* memory) : memory_(memory) {}

  // `caller`: the only thread of such a process, or 0 when it lives where we cannot see it.
  int Register(pid_t caller);
  bool AreFor(pid_t thread) const;

 private:
  DeviceMemory* const memory_;
};

}  // namespace fusefs

#endif  // FUSEFS_CACHEFILES_EXACT_IDS_H_
