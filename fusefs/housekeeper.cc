#include "fusefs/housekeeper.h"

namespace fusefs {
namespace {

// How late the end of an overdue read may come.
constexpr std::chrono::milliseconds kTick(50);
// How long a disk that takes writes again may go unnoticed.
constexpr std::chrono::seconds kHealInterval(1);

}  // namespace

// Two threads, since an fdatasync of many megabytes must not hold up the end of an overdue read.
Housekeeper::Housekeeper(HousekeeperOptions options, cachecore::Cache* cache)
    : options_(options), cache_(cache) {
  const auto every_tick = [this](auto&& work) {
    cachecore::MutexLock lock(&mu_);
    while (!stopping_) {
      mu_.Unlock();
      work();
      mu_.Lock();
      if (!stopping_) stopped_.WaitFor(&mu_, kTick);
    }
  };
  expiry_ = std::thread([this, every_tick] {
    every_tick([this] {
      ticks_.Begin();
      cache_->Expire();
      ticks_.End();
    });
  });
  sync_ = std::thread([this, every_tick] {
    cachecore::Duration last = cachecore::Clock::Monotonic().Now();
    cachecore::Duration healed = last;
    every_tick([this, &last, &healed] {
      const cachecore::Duration now = cachecore::Clock::Monotonic().Now();
      if (now - healed >= kHealInterval) {
        cache_->Heal();
        healed = now;
      }
      if (now - last < options_.sync_interval && cache_->unsynced_bytes() < options_.sync_bytes) {
        return;
      }
      cache_->Sync();
      last = now;
    });
  });
}

Housekeeper::~Housekeeper() {
  {
    cachecore::MutexLock lock(&mu_);
    stopping_ = true;
  }
  stopped_.NotifyAll();
  expiry_.join();
  sync_.join();
  cache_->Sync();
}

}  // namespace fusefs
