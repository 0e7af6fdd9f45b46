// Housekeeper: the thread that ends overdue reads and makes what was filled durable.
//
// Threads  one of its own; nothing waits for it but Stop.
// Crash    what it had not synced yet is still this boot's; a power cut loses it and it is
// refetched. See      docs/design.md "Durability".

#ifndef FUSEFS_HOUSEKEEPER_H_
#define FUSEFS_HOUSEKEEPER_H_

#include <chrono>
#include <cstdint>
#include <thread>

#include "cachecore/cache.h"
#include "cachecore/mutex.h"
#include "fusefs/grants.h"
#include "fusefs/watchdog.h"

namespace fusefs {

struct HousekeeperOptions {
  cachecore::Duration sync_interval = std::chrono::seconds(5);
  uint64_t sync_bytes = 256 << 20;  // Sync earlier when this much waits for it.
};

class Housekeeper {
 public:
  Housekeeper(HousekeeperOptions options, cachecore::Cache* cache, Grants* grants);
  ~Housekeeper();  // Syncs a last time.

  // Moves with each look for overdue reads.
  const WorkMark& ticks() const { return ticks_; }

 private:
  // Ends loans whose time is up, and the requests of what nobody has mounted.
  void EndUnwanted();

  const HousekeeperOptions options_;
  cachecore::Cache* const cache_;
  Grants* const grants_;
  cachecore::Mutex mu_;
  cachecore::CondVar stopped_;
  bool stopping_ GUARDED_BY(mu_) = false;
  WorkMark ticks_;
  std::thread expiry_;
  std::thread sync_;
};

}  // namespace fusefs

#endif  // FUSEFS_HOUSEKEEPER_H_
