// BlockingCalls: functions that may block, each on a thread of its own beside the event loop.
//
// Model    Start gives a function a thread and a Cancel.  A function that blocks polls the Cancel's
//          descriptor too and returns soon after Cancelled; it shares with the loop only what has a
//          lock.  When it has returned, `wake` is called.
// Threads  everything on the event loop, but for the functions and `wake`, which run on the
//          threads.
// Owns     the threads.  The destructor cancels and joins them.
// Cost     a thread a call: calls are rare and mostly wait.

#ifndef FETCHER_TRANSFER_BLOCKING_CALLS_H_
#define FETCHER_TRANSFER_BLOCKING_CALLS_H_

#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <thread>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"

namespace fetcher {

class Cancel {
 public:
  Cancel();
  void Set();
  bool IsSet() const { return set_; }
  // Readable for ever once it is set.
  int fd() const { return event_.get(); }

 private:
  std::atomic<bool> set_ = false;  // Read by the call's thread.
  const cachecore::UniqueFd event_;
};

class BlockingCalls {
 public:
  explicit BlockingCalls(std::function<void()> wake) : wake_(std::move(wake)) {}
  ~BlockingCalls() { Stop(); }
  BlockingCalls(const BlockingCalls&) = delete;
  BlockingCalls& operator=(const BlockingCalls&) = delete;

  // Setting the result cancels the call; its thread ends when the function sees that.
  // EAGAIN: there is no thread for it; `purpose` is named to people.
  cachecore::Result<std::shared_ptr<Cancel>> Start(const std::string& purpose,
                                                   std::function<void(const Cancel&)> call);
  // Joins those that have returned.
  void Reap();
  // Cancels and joins all: Start is not called any more.
  void Stop();

 private:
  struct Call {
    std::shared_ptr<Cancel> cancel = std::make_shared<Cancel>();
    std::atomic<bool> returned = false;  // Set by its thread as the last thing.
    std::thread thread;
  };

  const std::function<void()> wake_;
  std::list<Call> calls_;
};

}  // namespace fetcher

#endif  // FETCHER_TRANSFER_BLOCKING_CALLS_H_
