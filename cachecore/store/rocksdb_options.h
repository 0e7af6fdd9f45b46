// How RocksDB is opened here, and how its errors are read.
//
// Model    RocksDbSignals are flags between the database and RocksDB's own threads and log.
// Threads  thread-safe.
// See      cachecore/store/rocksdb_database.h.

#ifndef CACHECORE_STORE_ROCKSDB_OPTIONS_H_
#define CACHECORE_STORE_ROCKSDB_OPTIONS_H_

#include <rocksdb/options.h>
#include <rocksdb/slice.h>
#include <rocksdb/status.h>

#include <atomic>
#include <memory>
#include <string>
#include <string_view>

#include "cachecore/base/status.h"

namespace cachecore {

struct RocksDbSignals {
  std::atomic<bool> met_bad_block = false;  // A compaction has.
  std::atomic<bool> quiet = false;          // The trouble has been logged; RocksDB repeats it.
};

inline std::string_view View(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

rocksdb::Options MakeRocksDbOptions(std::shared_ptr<RocksDbSignals> signals);

// The errno and the sentence of a failure: EBADMSG for damage, ENOSPC, EDQUOT or EROFS where
// RocksDB's text names them, else EIO.
Status FromRocksDb(const rocksdb::Status& status, const std::string& doing);

// Another process, or another place in this one, has it open.
bool IsRocksDbLockHeld(const rocksdb::Status& status);
// A repair may help.
bool IsRocksDbDamage(const rocksdb::Status& status);

}  // namespace cachecore

#endif  // CACHECORE_STORE_ROCKSDB_OPTIONS_H_
