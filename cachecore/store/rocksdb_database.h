// RocksDbDatabase: one RocksDB database, opened as the metadata store needs it.
//
// Model    ordered byte keys and values.  Merge() joins presence values (schema::MergePresence).
// Errors   Open: EBUSY (another process has it open), EBADMSG (damaged beyond repair), else the
//          error of the disk; each message names the directory and the cure.  Later: EBADMSG when
//          RocksDB's own checksums fail, which loses the records of one block, ENOSPC, else EIO.  A
//          failed Write does not end the database: once the disk takes writes again, so does it.  A
//          database that is there and can only be read is opened all the same: what is written then
//          is kept in memory, and goes to the disk with Heal.
// Threads  thread-safe; every call may block on disk.
// Owns     an flock on its directory, and RocksDB's own lock.
// Cost     tuned small: two 4 MiB memtables, 4 MiB block cache; every table file held open.  In
//          memory: all records.
// Crash    a torn log tail is cut off; a log damaged in its middle loses what came after.  When a
//          table file, the manifest or CURRENT is damaged or gone, Open repairs: what the files
//          that are left hold is kept, and records of different ages may stand side by side. What
//          is only in memory dies with the process; Heal writes all of it or none.

#ifndef CACHECORE_STORE_ROCKSDB_DATABASE_H_
#define CACHECORE_STORE_ROCKSDB_DATABASE_H_

#include <rocksdb/db.h>
#include <rocksdb/write_batch.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <utility>

#include "cachecore/base/mutex.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/store/metadata_store.h"
#include "cachecore/store/rocksdb_options.h"

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
  // Whether what is written is kept in memory only.
  bool in_memory() const { return in_memory_; }
  // Keeps what is written in memory from now on, as the disk takes no writes; logs `why`.  Before
  // another component has it.
  Status FallBackToMemory(const Status& why);
  // Tries to make the disk take writes again where it does not; says why it still does not.
  Status Heal() EXCLUDES(resume_mu_);
  // The last key that starts with `prefix`; nullopt if there is none, or it cannot be read.
  std::optional<std::string> LastKey(const std::string& prefix) const;

  Result<std::optional<std::string>> Get(const std::string& key) const;
  // Every record whose key starts with `prefix` ("" for all), in order, until visit returns false.
  Status Scan(const std::string& prefix, const Visit& visit) const;
  // All or nothing.  Synced, it does not hold up others' writes.
  Status Write(rocksdb::WriteBatch* batch, Sync sync) EXCLUDES(resume_mu_);

 private:
  RocksDbDatabase(std::string directory, UniqueFd lock);

  Status OpenOnDisk();
  Status MoveToDisk();
  // `at_once`: even if that has been tried a moment ago.
  Status Resume(bool at_once) EXCLUDES(resume_mu_);
  Status NoteFailure(const Status& why, bool of_sync) EXCLUDES(resume_mu_);
  std::shared_ptr<rocksdb::DB> Db() const EXCLUDES(db_mu_);
  void SetDb(std::shared_ptr<rocksdb::DB> db) EXCLUDES(db_mu_);

  const std::string directory_;
  const UniqueFd lock_;  // An flock; invalid when opened read-only.
  const std::shared_ptr<RocksDbSignals> signals_;
  bool repaired_ = false;                // Set before another component has it.
  std::atomic<bool> in_memory_ = false;  // Changes under exchange_mu_; atomic for a first look.
  std::shared_mutex exchange_mu_;        // Held shared to write, alone to exchange the database.
  mutable Mutex db_mu_;
  std::shared_ptr<rocksdb::DB> db_ GUARDED_BY(db_mu_);
  Mutex resume_mu_;                       // Held while writing is resumed.
  std::atomic<bool> has_failed_ = false;  // Atomic so that a good write takes no lock.
  bool sync_failed_ GUARDED_BY(resume_mu_) = false;
  Status trouble_ GUARDED_BY(resume_mu_);
  std::chrono::steady_clock::time_point tried_at_ GUARDED_BY(resume_mu_);
};

}  // namespace cachecore

#endif  // CACHECORE_STORE_ROCKSDB_DATABASE_H_
