#include "fusefs/housekeeper.h"

#include <glog/logging.h>

#include "fusefs/server/interrupts.h"

namespace fusefs {
namespace {

// How late the end of an overdue read may come.
constexpr std::chrono::milliseconds kTick(50);
// How long a disk that takes writes again may go unnoticed.
constexpr std::chrono::seconds kHealInterval(1);

// How often the totals are, if they have changed.
constexpr std::chrono::seconds kKeepTotals(5);
// How often it is kept on disk what was used.
constexpr std::chrono::seconds kKeepUses(5);

// The delay until an object without a mount is noticed.
constexpr std::chrono::seconds kSlowTick(1);

}  // namespace

void Housekeeper::EndUnwanted() {
  grants_->Expire();
  cache_->EndUnwanted(
      [this](const std::string& volume, const std::string& object) {
        return grants_->Has({volume, object});
      },
      IsBeingKilled);
}

// Threads of their own, since neither an fdatasync of many megabytes nor a cull that waits for
// replies must hold up the end of an overdue read.
Housekeeper::Housekeeper(HousekeeperOptions options, cachecore::Cache* cache, Grants* grants,
                         MountedObjects* mounted, CacheLimits* limits, KeptTotals* totals)
    : options_(options),
      cache_(cache),
      grants_(grants),
      mounted_(mounted),
      limits_(limits),
      totals_(totals) {
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
      if (mounted_ != nullptr) mounted_->Sweep();
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
    cachecore::Duration kept = last;
    every_tick([this, &last, &healed, &kept] {
      const cachecore::Duration now = cachecore::Clock::Monotonic().Now();
      if (now - healed >= kHealInterval) {
        cache_->Heal();
        healed = now;
      }
      if (now - kept >= kKeepTotals) {
        totals_->Keep();
        kept = now;
      }
      if (now - last < options_.sync_interval && cache_->unsynced_bytes() < options_.sync_bytes) {
        return;
      }
      cache_->Sync();
      last = now;
    });
  });
  cull_ = std::thread([this, every_tick] {
    cachecore::Duration kept = cachecore::Clock::Monotonic().Now();
    every_tick([this, &kept] {
      limits_->Keep();
      const cachecore::Duration now = cachecore::Clock::Monotonic().Now();
      if (now - kept < kKeepUses) return;
      cache_->culler().KeepUses();
      kept = now;
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
  cull_.join();
  cache_->culler().KeepUses();
  cache_->Sync();
  totals_->Keep();
}

}  // namespace fusefs
