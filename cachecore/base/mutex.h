// Mutex, MutexLock, CondVar: std::mutex with clang's thread-safety annotations.
//
// Model    the only file that names std::mutex; every guarded field elsewhere says GUARDED_BY.
// Threads  thread-safe.  A thread that holds a lock takes only locks of a later level: the table in
//          docs/design.md, "Locks", has every lock; tests/lock_order_test.py compares it with the
//          tree, and the thread sanitizer reports an order that was not kept.

#ifndef CACHECORE_BASE_MUTEX_H_
#define CACHECORE_BASE_MUTEX_H_

#include <chrono>
#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define HOLDFAST_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define HOLDFAST_THREAD_ANNOTATION(x)
#endif

// Abseil, which gRPC's headers bring, has the same words with the same meaning.
#undef GUARDED_BY
#undef NO_THREAD_SAFETY_ANALYSIS

#define CAPABILITY(x) HOLDFAST_THREAD_ANNOTATION(capability(x))
#define SCOPED_CAPABILITY HOLDFAST_THREAD_ANNOTATION(scoped_lockable)
#define GUARDED_BY(x) HOLDFAST_THREAD_ANNOTATION(guarded_by(x))
#define REQUIRES(...) HOLDFAST_THREAD_ANNOTATION(requires_capability(__VA_ARGS__))
#define EXCLUDES(...) HOLDFAST_THREAD_ANNOTATION(locks_excluded(__VA_ARGS__))
#define ACQUIRE(...) HOLDFAST_THREAD_ANNOTATION(acquire_capability(__VA_ARGS__))
#define RELEASE(...) HOLDFAST_THREAD_ANNOTATION(release_capability(__VA_ARGS__))
#define NO_THREAD_SAFETY_ANALYSIS HOLDFAST_THREAD_ANNOTATION(no_thread_safety_analysis)

namespace cachecore {

class CAPABILITY("mutex") Mutex {
 public:
  void Lock() ACQUIRE() { mu_.lock(); }
  void Unlock() RELEASE() { mu_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mu_;
};

class SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex* mu) ACQUIRE(mu) : mu_(mu) { mu_->Lock(); }
  ~MutexLock() RELEASE() { mu_->Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex* const mu_;
};

class CondVar {
 public:
  void Wait(Mutex* mu) REQUIRES(mu) {
    std::unique_lock<std::mutex> lock(mu->mu_, std::adopt_lock);
    cv_.wait(lock);
    lock.release();
  }
  // False when `timeout` passed first.
  bool WaitFor(Mutex* mu, std::chrono::milliseconds timeout) REQUIRES(mu) {
    std::unique_lock<std::mutex> lock(mu->mu_, std::adopt_lock);
    const bool signalled = cv_.wait_for(lock, timeout) == std::cv_status::no_timeout;
    lock.release();
    return signalled;
  }
  void NotifyAll() { cv_.notify_all(); }

 private:
  std::condition_variable cv_;
};

}  // namespace cachecore

#endif  // CACHECORE_BASE_MUTEX_H_
