#include "fusefs/server/work_pool.h"

#include <utility>

namespace fusefs {

using cachecore::MutexLock;

void WorkPool::Post(std::function<void()> work) {
  {
    MutexLock lock(&mu_);
    if (stopping_) return;
    if (threads_.empty()) {
      for (int i = 0; i < thread_count_; ++i) threads_.emplace_back([this] { Run(); });
    }
    queue_.push_back(std::move(work));
  }
  changed_.NotifyAll();
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
