#include "fusefs/server/work_pool.h"

#include <glog/logging.h>

#include <utility>

#include "cachecore/system/process_limits.h"

namespace fusefs {

using cachecore::MutexLock;
using cachecore::Result;

void WorkPool::Post(std::function<void()> work) {
  {
    MutexLock lock(&mu_);
    if (stopping_) return;
    if (threads_.empty()) {
      StartThreads();
    }
    if (!threads_.empty()) {
      queue_.push_back(std::move(work));
      work = nullptr;
    }
  }
  changed_.NotifyAll();
  if (work) work();  // It holds up the caller's thread, and nothing is refused.
}

// One is enough; the next Post tries again where there is none.
void WorkPool::StartThreads() {
  for (int i = 0; i < thread_count_; ++i) {
    Result<std::thread> thread = cachecore::StartThread("checking what is read", [this] { Run(); });
    if (!thread.ok()) {
      LOG_EVERY_N(ERROR, 1000) << thread.status().message();
      return;
    }
    threads_.push_back(std::move(thread).value());
  }
}

void WorkPool::Stop() {
  std::vector<std::thread> threads;
  {
    MutexLock lock(&mu_);
    stopping_ = true;
    queue_.clear();
    threads.swap(threads_);
  }
  changed_.NotifyAll();
  for (std::thread& thread : threads) thread.join();
}

void WorkPool::Run() {
  while (true) {
    std::function<void()> work;
    {
      MutexLock lock(&mu_);
      while (queue_.empty() && !stopping_) changed_.Wait(&mu_);
      if (stopping_) return;
      work = std::move(queue_.front());
      queue_.pop_front();
    }
    work();
  }
}

}  // namespace fusefs
