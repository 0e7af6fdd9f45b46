// IdReserve: the ids and numbers that the engine hands out, reserved on disk before they are taken.
//
// Model    message ids, ids of live instances, and numbers of objects and volumes: an IdBlock each.
//          A call that may take some begins with EnsureIds or EnsureNumbers, which reserve more
//          while there are plenty left; taking does no I/O.
// Errors   that of the store, once too few are left to go on with.
// Threads  thread-safe.  One thread reserves at a time; a taker does not wait for it.
// Crash    what is reserved and not taken is lost; what is taken never comes again.

#ifndef CACHECORE_CACHE_ID_RESERVE_H_
#define CACHECORE_CACHE_ID_RESERVE_H_

#include <atomic>
#include <cstdint>

#include "cachecore/base/mutex.h"
#include "cachecore/base/status.h"
#include "cachecore/store/metadata_store.h"
#include "cachecore/values/id_block.h"
#include "cachecore/values/ids.h"

namespace cachecore {

class IdReserve {
 public:
  // `msg_id_block`: how many message ids are reserved at a time.  `store` outlives this.
  IdReserve(MetadataStore* store, uint64_t msg_id_block);

  // A call that may make requests begins with this one.
  Status EnsureIds() EXCLUDES(mu_, refill_mu_);
  // A call that may make a volume or an object begins with this one.
  Status EnsureNumbers() EXCLUDES(mu_, refill_mu_);
  // Whether the last EnsureIds has failed.  Takes no lock.
  bool lacks_ids() const { return lacks_ids_.load(std::memory_order_relaxed); }

  MsgId TakeMsgId() EXCLUDES(mu_);
  ObjectId TakeObjectId() EXCLUDES(mu_);
  ObjectNumber TakeNumber() EXCLUDES(mu_);

 private:
  Status Refill(IdBlock* block, Counter counter, uint64_t count) EXCLUDES(mu_, refill_mu_);
  bool NeedsMore(const IdBlock* block) EXCLUDES(mu_);
  uint64_t Take(IdBlock* block) EXCLUDES(mu_);

  MetadataStore* const store_;
  const uint64_t msg_id_block_;
  std::atomic<bool> lacks_ids_ = false;
  Mutex refill_mu_;  // Makes one thread reserve.  Before mu_.
  Mutex mu_;         // The blocks.
  IdBlock msg_ids_;
  IdBlock object_ids_;
  IdBlock numbers_;
};

}  // namespace cachecore

#endif  // CACHECORE_CACHE_ID_RESERVE_H_
