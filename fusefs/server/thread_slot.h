// ThreadSlot: hands a value past libfuse, to our callbacks that libfuse calls on the same thread.
//
// Model    libfuse gives an operation no `unique`, and the I/O callbacks no request.  A caller of
//          libfuse keeps what they need in a ThreadSlot for the time of that call; the callbacks of
//          fuse_callbacks.cc take it by Current and pass it on as a parameter.  No other code may
//          call Current.
// Threads  a slot is its thread's own.  Slots of one type nest.

#ifndef FUSEFS_SERVER_THREAD_SLOT_H_
#define FUSEFS_SERVER_THREAD_SLOT_H_

#include <utility>

namespace fusefs {

template <typename T>
class ThreadSlot {
 public:
  explicit ThreadSlot(T* value) : outer_(std::exchange(current_, value)) {}
  ~ThreadSlot() { current_ = outer_; }
  ThreadSlot(const ThreadSlot&) = delete;
  ThreadSlot& operator=(const ThreadSlot&) = delete;

  // The value of the innermost slot of this thread; null without one.
  static T* Current() { return current_; }

 private:
  static inline thread_local T* current_ = nullptr;
  T* const outer_;
};

}  // namespace fusefs

#endif  // FUSEFS_SERVER_THREAD_SLOT_H_
