// Watchdog: tells the service manager that this daemon serves, for as long as it does.
//
// Model    each thread that serves has a WorkMark: what it is at, or that it waits for work.  A
//          look finds the daemon well if no thread has been at one piece of work for longer than
//          `limit`, the housekeeper has ticked within it, and the engine's lock could be taken.
//          Only then is there a ping.  A lock that cannot be had holds up the watchdog itself,
//          which comes to the same.
// Errors   an illness is logged once, with what is stuck; the manager ends us after `limit`.
// Threads  WorkMark: written by one thread, read by the watchdog's.  Watchdog: one of its own.
// Cost     a mark is two stores a request.
// See      sd_watchdog_enabled(3); docs/recovery.md "What may die".

#ifndef FUSEFS_SERVICE_WATCHDOG_H_
#define FUSEFS_SERVICE_WATCHDOG_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "cachecore/base/clock.h"
#include "cachecore/base/mutex.h"
#include "cachecore/base/status.h"

namespace fusefs {

class WorkMark {
 public:
  void Begin() { Step(); }
  void End() { Step(); }
  // Odd: at work; another odd number is another piece of work.
  uint64_t count() const { return count_.load(std::memory_order_relaxed); }

 private:
  // One writer, so no read-modify-write.
  void Step() { count_.store(count() + 1, std::memory_order_relaxed); }
  std::atomic<uint64_t> count_{0};
};

// Health: what a Watchdog asks.
//
// Threads  one thread only.
class Health {
 public:
  // `limit`: how long one piece of work may take.
  Health(cachecore::Duration limit, const cachecore::Clock& clock) : limit_(limit), clock_(clock) {}
  // May wait for work as long as it likes, but not be at one piece of it.
  void Watch(std::string what, const WorkMark* mark) { Add(std::move(what), mark, false); }
  // Must move within the limit, work or none.
  void WatchTicks(std::string what, const WorkMark* mark) { Add(std::move(what), mark, true); }
  // A sentence naming what is stuck, and since when.
  cachecore::Status Look();

 private:
  struct Watched {
    std::string what;
    const WorkMark* mark;
    bool must_move;
    uint64_t seen;
    cachecore::Duration since;  // That `seen` has stood.
  };
  void Add(std::string what, const WorkMark* mark, bool must_move);

  const cachecore::Duration limit_;
  const cachecore::Clock& clock_;
  std::vector<Watched> watched_;
};

class Watchdog {
 public:
  // Looks every `interval`; `touch_engine` takes the engine's lock and lets it go.
  Watchdog(Health health, cachecore::Duration interval, std::function<void()> touch_engine,
           std::function<void()> ping);
  ~Watchdog();

 private:
  void Run();

  Health health_;
  const cachecore::Duration interval_;
  const std::function<void()> touch_engine_;
  const std::function<void()> ping_;
  cachecore::Mutex mu_;
  cachecore::CondVar stopped_;
  bool stopping_ GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace fusefs

#endif  // FUSEFS_SERVICE_WATCHDOG_H_
