// RocksDbDatabase: one RocksDB database, opened as the metadata store needs it; the only file pair
// that includes rocksdb/.
//
// Model    ordered byte keys and values.  Merge() joins presence values (schema::MergePresence).
// Errors   Open: EBUSY (another process has it open), EBADMSG (damaged beyond repair), else what
// the
//          disk said; each message names the directory and the cure.
//          Later: EBADMSG when RocksDB's own checksums fail, which costs the records of one block,
//          ENOSPC, else EIO.  A failed Write does not end the database: once the disk takes writes
//          again, so does it.
// Threads  thread-safe; every call may block on disk.
// Cost     tuned small: two 4 MiB memtables, 4 MiB block cache; every table file held open.
// Crash    a torn log tail is cut off; a log damaged in its middle loses what came after.  When a
//          table file, the manifest or CURRENT is damaged or gone, Open repairs: what the files
//          that are left hold is kept, and records of different ages may stand side by side.

#ifndef CACHECORE_ROCKSDB_DATABASE_H_
#define CACHECORE_ROCKSDB_DATABASE_H_

#include <rocksdb/db.h>
#include <rocksdb/write_batch.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "cachecore/metadata_store.h"
#include "cachecore/mutex.h"
#include "cachecore/status.h"

namespace cachecore {

class RocksDbDatabase {
 public:
  using Visit = std::function<bool(std::string_view key, std::string_view value)>;

  // Makes `directory` (mode 0700) and the database if need be.
  static Result<std::unique_ptr<RocksDbDatabase>> Open(const std::string& directory);
  // Opens, writes to, opens again and forgets a database in memory.
  static void WarmUp();
  // As it is on disk now, log included; works beside a process that has it open.
  static Result<std::unique_ptr<RocksDbDatabase>> OpenReadOnly(const std::string& directory);

  // Open had to repair it: see Crash.
  bool repaired() const { return repaired_; }
  // The last key that starts with `prefix`; nullopt if there is none, or it cannot be read.
  std::optional<std::string> LastKey(const std::string& prefix) const;

  Result<std::optional<std::string>> Get(const std::string& key) const;
  // Every record whose key starts with `prefix` ("" for all), in order, until visit returns false.
  Status Scan(const std::string& prefix, const Visit& visit) const;
  // All or nothing.
  Status Write(rocksdb::WriteBatch* batch, Sync sync) EXCLUDES(resume_mu_);

 private:
  RocksDbDatabase(rocksdb::DB* db, std::shared_ptr<std::atomic<bool>> met_bad_block)
      : met_bad_block_(std::move(met_bad_block)), db_(db) {}

  bool repaired_ = false;  // Set before anybody else has it.
  // Set by RocksDB's threads: a compaction met a bad block.
  const std::shared_ptr<std::atomic<bool>> met_bad_block_;
  const std::unique_ptr<rocksdb::DB> db_;
  Mutex resume_mu_;                       // Held while writing is resumed.
  std::atomic<bool> has_failed_ = false;  // Atomic so that a good write takes no lock.
};

}  // namespace cachecore

#endif  // CACHECORE_ROCKSDB_DATABASE_H_
