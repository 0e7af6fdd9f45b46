// RocksDbCounters: the counters that only grow, in blocks that are recorded before they are used.
//
// Errors   a damaged record costs a gap.  One that cannot be written costs a gap too, but for object
//          numbers: these are refused with what the disk said.
// Threads  thread-safe.
// See      MetadataStore::Reserve; docs/format.md "Records".

#ifndef CACHECORE_ROCKSDB_COUNTERS_H_
#define CACHECORE_ROCKSDB_COUNTERS_H_

#include <array>
#include <cstdint>

#include "cachecore/metadata_store.h"
#include "cachecore/mutex.h"
#include "cachecore/rocksdb_database.h"
#include "cachecore/status.h"

namespace cachecore {

class RocksDbCounters {
 public:
  explicit RocksDbCounters(RocksDbDatabase* db) : db_(db) {}
  Result<uint64_t> Reserve(Counter counter, uint64_t count) EXCLUDES(mu_);

 private:
  Result<uint64_t> NextAfterDamage(Counter counter) const;
  Result<uint64_t> NextUnrecorded(Counter counter, uint64_t recorded, uint64_t count,
                                  const Status& why) REQUIRES(mu_);

  RocksDbDatabase* const db_;
  Mutex mu_;  // Held over a counter's read and write.
  std::array<uint64_t, 4> unrecorded_end_ GUARDED_BY(mu_){};  // By Counter.
};

}  // namespace cachecore

#endif  // CACHECORE_ROCKSDB_COUNTERS_H_
