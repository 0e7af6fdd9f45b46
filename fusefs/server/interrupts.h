// Interrupts: lets killed readers go while their read or look-up is still waiting.
//
// Model    a waiting read or look-up is watched from before it is handed to the Cache until it is
//          answered. The kernel says FUSE_INTERRUPT once, at the first signal; the read is
//          withdrawn, and answered EINTR, when the reading thread has SIGKILL pending, then or
//          later: any other signal must not break a read of a regular file.  An interrupted reader
//          is looked at every few milliseconds until its read ends.
// Threads  thread-safe; one thread of its own.
// Owns     a ticket of each.
// See      docs/design.md "The FUSE side".

#ifndef FUSEFS_SERVER_INTERRUPTS_H_
#define FUSEFS_SERVER_INTERRUPTS_H_

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <thread>
#include <unordered_map>

#include "cachecore/base/mutex.h"
#include "cachecore/cache/cache.h"

namespace fusefs {

// True when thread `tid` has SIGKILL pending or no longer exists.
bool IsBeingKilled(pid_t tid);

class Interrupts {
 public:
  explicit Interrupts(cachecore::Cache* cache);
  ~Interrupts();
  // Ends the thread; from then on the waits of killed readers are not ended.
  void Stop() EXCLUDES(mu_);

  // A read is about to wait; returns its watch.  `tid` is the reading thread.  `resent`: the kernel
  // has sent it again.
  uint64_t Watch(pid_t tid, bool resent) EXCLUDES(mu_);
  // The Cache has taken it.  No-op when it has ended already.
  void SetTicket(uint64_t watch, cachecore::WaitTicket ticket) EXCLUDES(mu_);
  // It has been answered.
  void Unwatch(uint64_t watch) EXCLUDES(mu_);
  // The kernel has said FUSE_INTERRUPT for it.
  void Interrupt(uint64_t watch) EXCLUDES(mu_);

 private:
  struct Watched {
    pid_t tid;
    bool resent;
    bool interrupted = false;
    std::optional<cachecore::WaitTicket> ticket;
  };

  void Run() EXCLUDES(mu_);

  cachecore::Cache* const cache_;
  cachecore::Mutex mu_;
  cachecore::CondVar changed_;
  std::unordered_map<uint64_t, Watched> watched_ GUARDED_BY(mu_);
  size_t interrupted_ GUARDED_BY(mu_) = 0;
  size_t resent_ GUARDED_BY(mu_) = 0;
  uint64_t next_watch_ GUARDED_BY(mu_) = 1;
  bool stopping_ GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace fusefs

#endif  // FUSEFS_SERVER_INTERRUPTS_H_
