// RocksDbCounters: the counters that only grow, in blocks that are recorded before they are used.
//
// Errors   a damaged record causes a gap in the numbers.  A record that cannot be written causes a
//          gap too, but for object numbers: these are refused with the error of the disk.
// Threads  thread-safe.
// See      MetadataStore::Reserve; docs/format.md "Records".

#ifndef CACHECORE_STORE_ROCKSDB_COUNTERS_H_
#define CACHECORE_STORE_ROCKSDB_COUNTERS_H_

#include <array>
#include <cstdint>

#include "cachecore/base/mutex.h"
#include "cachecore/base/status.h"
#include "cachecore/store/metadata_store.h"
#include "cachecore/store/rocksdb_database.h"

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

#endif  // CACHECORE_STORE_ROCKSDB_COUNTERS_H_
