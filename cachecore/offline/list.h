// ListCache: the objects of a cache that no daemon uses, by its records and data files.
//
// Errors   what keeps the database from being read; records that do not decode are left out.
// Threads  thread-compatible; blocks on disk.
// Cost     one pass over all records, in memory a presence map an object.
// Crash    nothing is written and no lock is taken.
// See      holdfast(1) "holdfast cache ls"

#ifndef CACHECORE_OFFLINE_LIST_H_
#define CACHECORE_OFFLINE_LIST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "cachecore/base/status.h"

namespace cachecore {

struct ListedObject {
  std::string volume;
  std::string cookie;
  uint64_t size_bytes = 0;
  uint64_t present_bytes = 0;    // In this boot.
  uint64_t allocated_bytes = 0;  // Of its data file, on the disk.
  uint64_t used = 0;             // When bytes were last read or filled; seconds since 1970.
  bool is_pinned = false;
};

// In order of number.  `boot_id`: whose presence is trusted beside what is durable.
Result<std::vector<ListedObject>> ListCache(const std::string& cache_dir,
                                            const std::string& boot_id);

}  // namespace cachecore

#endif  // CACHECORE_OFFLINE_LIST_H_
