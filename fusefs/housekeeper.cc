#include "fusefs/housekeeper.h"

#include <glog/logging.h>

#include "fusefs/interrupts.h"

namespace fusefs {
namespace {

// How late the end of an overdue read may come.
constexpr std::chrono::milliseconds kTick(50);
// How long a disk that takes writes again may go unnoticed.
constexpr std::chrono::seconds kHealInterval(1);

// How late what nobody has mounted any more is noticed.
constexpr std::chrono::seconds kSlowTick(1);

}  // namespace

void Housekeeper::EndUnwanted() {
  const cachecore::Status expired = grants_->Expire();
  LOG_IF_EVERY_N(ERROR, !expired.ok(), 60) << expired.message();
  cache_->EndUnwanted(
      [this](const std::string& volume, const std::string& object) {
        return grants_->Has({volume, object});
      },
      IsBeingKilled);
}

// Two threads, since an fdatasync of many megabytes must not hold up the end of an overdue read.
Housekeeper::Housekeeper(HousekeeperOptions options, cachecore::Cache* cache, Grants* grants)
    : options_(options), cache_(cache), grants_(grants) {
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
    every_tick([this, last = cachecore::Duration(0)]() mutable {
      ticks_.Begin();
      cache_->Expire();
      const cachecore::Duration now = cachecore::Clock::Monotonic().Now();
      if (now - last >= kSlowTick) {
        last = now;
        EndUnwanted();
      }
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
