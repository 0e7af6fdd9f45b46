// WorkPool: a few threads for work that would hold up the thread it comes up on.
//
// Model    a queue without a limit of its own: what is in it are requests of the kernel, which has
//          one.  Started by the first Post; without a thread, Post does the work itself.
// Threads  thread-safe; the work runs on threads of the pool, in any order.
// Crash    what is queued at Stop is not done: the kernel sends its requests to the next daemon.

#ifndef FUSEFS_SERVER_WORK_POOL_H_
#define FUSEFS_SERVER_WORK_POOL_H_

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "cachecore/base/mutex.h"

namespace fusefs {

class WorkPool {
 public:
  explicit WorkPool(int threads) : thread_count_(threads) {}
  ~WorkPool() { Stop(); }

  void Post(std::function<void()> work) EXCLUDES(mu_);
  void Stop() EXCLUDES(mu_);

 private:
  void StartThreads() REQUIRES(mu_);
  void Run() EXCLUDES(mu_);

  const int thread_count_;
  cachecore::Mutex mu_;
  cachecore::CondVar changed_;
  std::deque<std::function<void()>> queue_ GUARDED_BY(mu_);
  std::vector<std::thread> threads_ GUARDED_BY(mu_);
  bool stopping_ GUARDED_BY(mu_) = false;
};

}  // namespace fusefs

#endif  // FUSEFS_SERVER_WORK_POOL_H_
