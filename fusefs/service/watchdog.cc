#include "fusefs/service/watchdog.h"

#include <glog/logging.h>

#include <cerrno>
#include <chrono>
#include <utility>

namespace fusefs {

using cachecore::Duration;
using cachecore::MutexLock;
using cachecore::Status;

void Health::Add(std::string what, const WorkMark* mark, bool must_move) {
  watched_.push_back({std::move(what), mark, must_move, mark->count(), clock_.Now()});
}

Status Health::Look() {
  const Duration now = clock_.Now();
  Status stuck;
  for (Watched& watched : watched_) {
    const uint64_t count = watched.mark->count();
    if (count != watched.seen) {
      watched.seen = count;
      watched.since = now;
    }
    const bool may_rest = !watched.must_move && count % 2 == 0;
    if (may_rest || now - watched.since <= limit_) continue;
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now - watched.since);
    stuck = Status(ETIMEDOUT, watched.what + " has been at one thing for " +
                                  std::to_string(ms.count()) + " ms");
  }
  return stuck;
}

Watchdog::Watchdog(Health health, Duration interval, std::function<void()> touch_engine,
                   std::function<void()> ping)
    : health_(std::move(health)),
      interval_(interval),
      touch_engine_(std::move(touch_engine)),
      ping_(std::move(ping)) {
  thread_ = std::thread([this] { Run(); });
}

Watchdog::~Watchdog() {
  {
    MutexLock lock(&mu_);
    stopping_ = true;
  }
  stopped_.NotifyAll();
  thread_.join();
}

void Watchdog::Run() {
  bool was_well = true;
  MutexLock lock(&mu_);
  while (!stopping_) {
    mu_.Unlock();
    touch_engine_();
    const Status health = health_.Look();
    if (health.ok()) ping_();
    if (!health.ok() && was_well) {
      LOG(ERROR) << health.message() << "; the watchdog is told nothing until it goes on";
    }
    was_well = health.ok();
    mu_.Lock();
    const auto wait = std::chrono::ceil<std::chrono::milliseconds>(interval_);
    if (!stopping_) stopped_.WaitFor(&mu_, wait);
  }
}

}  // namespace fusefs
