// Housekeeper: the threads that end overdue reads, notice unmounts, make fills durable and keep the
//          cache's size.
//
// Threads  three of its own; nothing waits for them but the destructor.
// Crash    what it had not synced yet is still this boot's; a power cut loses it and it is
//          refetched.
// See      docs/design.md "Durability".

#ifndef FUSEFS_HOUSEKEEPER_H_
#define FUSEFS_HOUSEKEEPER_H_

#include <chrono>
#include <cstdint>
#include <thread>

#include "cachecore/base/mutex.h"
#include "cachecore/cache/cache.h"
#include "fusefs/cache_limits.h"
#include "fusefs/kept_totals.h"
#include "fusefs/server/grants.h"
#include "fusefs/server/mounted_objects.h"
#include "fusefs/service/watchdog.h"

namespace fusefs {

struct HousekeeperOptions {
  cachecore::Duration sync_interval = std::chrono::seconds(5);
  uint64_t sync_bytes = 256 << 20;  // Sync earlier when this much waits for it.
};

class Housekeeper {
 public:
  // `mounted` may be null.
  Housekeeper(HousekeeperOptions options, cachecore::Cache* cache, Grants* grants,
              MountedObjects* mounted, CacheLimits* limits, KeptTotals* totals);
  ~Housekeeper();  // Syncs a last time.

  // Moves with each look for overdue reads.
  const WorkMark& ticks() const { return ticks_; }

 private:
  // Ends loans whose time is up, and the requests of objects that no mount shows.
  void EndUnwanted();

  const HousekeeperOptions options_;
  cachecore::Cache* const cache_;
  Grants* const grants_;
  MountedObjects* const mounted_;
  CacheLimits* const limits_;
  KeptTotals* const totals_;
  cachecore::Mutex mu_;
  cachecore::CondVar stopped_;
  bool stopping_ GUARDED_BY(mu_) = false;
  WorkMark ticks_;
  std::thread expiry_;
  std::thread sync_;
  std::thread cull_;
};

}  // namespace fusefs

#endif  // FUSEFS_HOUSEKEEPER_H_
