// Durability: makes durable what is present in this boot, and removes what is lost or wrong.
//
// Model    Sync writes to disk what was filled since the last one, and then records it as durable.
//          Presence of bytes that the disk has lost, or that were found wrong, is removed on disk
//          and in memory: they are fetched again.
// Errors   logged.  What is not durable is tried again by the next Sync.  Where a loss cannot be
//          recorded the object is dropped.
// Threads  thread-safe but for Sync, which one thread calls at a time.  A change of durable
//          presence holds durable_mu_ over its record and its part in memory.
// Owns     nothing; the parts that it is given outlive it.
// Crash    fdatasync, then the durable presence record.  A removal of presence is recorded
//          before memory says absent.
// See      docs/design.md "Durability".

#ifndef CACHECORE_CACHE_DURABILITY_H_
#define CACHECORE_CACHE_DURABILITY_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "cachecore/base/byte_range.h"
#include "cachecore/base/clock.h"
#include "cachecore/base/mutex.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/cache/catalogue.h"
#include "cachecore/cache/guarded_engine.h"
#include "cachecore/cache/id_reserve.h"
#include "cachecore/engine/verified_reader.h"
#include "cachecore/logging/log_limiter.h"
#include "cachecore/store/data_store.h"
#include "cachecore/store/metadata_store.h"
#include "cachecore/store/metadata_writer.h"
#include "cachecore/values/ids.h"

namespace cachecore {

struct SyncCounters {
  uint64_t bytes = 0;   // Made durable.
  Duration longest{0};  // One Sync.
};

class Durability {
 public:
  Durability(const Clock& clock, MetadataStore* store, const DataStore& data, IdReserve* ids,
             MetadataWriter* writer, LogLimiter* log, GuardedEngine* core, Catalogue* catalogue,
             Count synced = {});

  // Makes what has been filled durable, by this daemon and by earlier ones of this boot.  Slow.
  void Sync() EXCLUDES(core_->mu, catalogue_->load_mu);
  uint64_t unsynced_bytes() EXCLUDES(core_->mu);
  SyncCounters counters() EXCLUDES(core_->mu);

  // Makes blocks absent that were read and do not agree with the object's digest.
  void RemoveWrongPresence(const ObjectVerity& object, const std::vector<WrongRange>& wrong)
      EXCLUDES(core_->mu, catalogue_->load_mu);
  // Commits, durably, a batch that removes presence which memory has removed already: it comes
  // after what a Sync that is under way records.
  Status RemovePresence(const MetadataBatch& batch) EXCLUDES(core_->mu);
  // Erases presence records of an object that has been dropped.  For a caller that has just
  // recorded, or tried to record, presence of it.
  void EraseStray(ObjectNumber number) EXCLUDES(core_->mu);

 private:
  struct SyncItem {
    ObjectNumber number;
    std::shared_ptr<const UniqueFd> file;
    std::vector<ByteRange> ranges;
  };
  void AdoptUnsynced() EXCLUDES(core_->mu, catalogue_->load_mu);
  void WriteDueRecords() EXCLUDES(core_->mu);
  void SyncOne(const SyncItem& item) EXCLUDES(core_->mu, catalogue_->load_mu);
  void LoseUnsynced(const SyncItem& item, const Status& why)
      EXCLUDES(core_->mu, catalogue_->load_mu);
  Status RecordDurable(const SyncItem& item) EXCLUDES(core_->mu);

  const Clock& clock_;
  MetadataStore* const store_;
  const DataStore& data_;
  IdReserve* const ids_;
  MetadataWriter* const writer_;
  LogLimiter* const log_;
  GuardedEngine* const core_;
  Catalogue* const catalogue_;
  Mutex durable_mu_;    // Before the engine's.
  const Count synced_;  // Goes on with the bytes of counters_.
  SyncCounters counters_ GUARDED_BY(core_->mu);
  bool adopted_ = false;  // Sync's thread only.
};

}  // namespace cachecore

#endif  // CACHECORE_CACHE_DURABILITY_H_
