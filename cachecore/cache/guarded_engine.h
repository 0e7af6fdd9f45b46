// GuardedEngine: the engine under its lock, and the change of it as a Transaction.
//
// Model    a caller that only looks holds `mu`.  A caller that changes something makes a
//          Transaction, which holds `mu` from its beginning to its end and then carries out the
//          effects that the engine has collected.
// Errors   a record that the store does not take is written by the next Sync that can
//          (Object::record_due).
// Threads  thread-safe.  Callbacks run on the thread that ends the Transaction, which holds no lock
//          then but those that it held before.
// Owns     engine and names.  The other parts that it is given outlive it.
// Crash    records and new journal entries are written before a reply says what is in them; journal
//          entries of ended requests are erased after the replies.
// See      docs/design.md "Life of a read".

#ifndef CACHECORE_CACHE_GUARDED_ENGINE_H_
#define CACHECORE_CACHE_GUARDED_ENGINE_H_

#include <functional>
#include <vector>

#include "cachecore/base/clock.h"
#include "cachecore/base/mutex.h"
#include "cachecore/cache/id_reserve.h"
#include "cachecore/cache/object_names.h"
#include "cachecore/engine/engine.h"
#include "cachecore/logging/log_limiter.h"
#include "cachecore/store/metadata_store.h"
#include "cachecore/store/metadata_writer.h"
#include "cachecore/totals/totals.h"

namespace cachecore {

ObjectRecord RecordOf(const Object& object);

class GuardedEngine {
 public:
  // Effects, and what must be copied out under the lock to carry them out without it.
  struct Work {
    Effects effects;
    std::vector<JournalRecord> journal;
    std::vector<ObjectRecord> records;
  };

  // One change of the engine.
  class SCOPED_CAPABILITY Transaction {
   public:
    explicit Transaction(GuardedEngine* core) ACQUIRE(core->mu);
    // For a caller that holds Catalogue::load_mu: it carries `later` out by Run when it has
    // released that.
    Transaction(GuardedEngine* core, Work* later) ACQUIRE(core->mu);
    ~Transaction() RELEASE();
    Transaction(const Transaction&) = delete;
    Transaction& operator=(const Transaction&) = delete;

    Effects* effects() { return &work_.effects; }

   private:
    GuardedEngine* const core_;
    Work* const later_;
    Work work_;
  };

  // `wake_device` is called, from any thread, when a message may be deliverable.  `totals`, which
  // may be null, go on with what the engine counts.
  GuardedEngine(EngineOptions options, const Clock& clock, IdReserve* ids, MetadataWriter* writer,
                LogLimiter* log, std::function<void()> wake_device, Totals* totals = nullptr);

  void Run(Work work) EXCLUDES(mu);
  // Takes the engine's counters to the totals.  A Transaction does it by itself.
  void AddUp() REQUIRES(mu);

  Mutex mu;
  Engine engine GUARDED_BY(mu);
  ObjectNames names GUARDED_BY(mu);

 private:
  void Seal(Work* work) REQUIRES(mu);

  MetadataWriter* const writer_;
  LogLimiter* const log_;
  const std::function<void()> wake_device_;

  struct Total {
    Count count;
    uint64_t before;  // Of earlier processes.
  };
  std::vector<Total> totals_;  // In the order of EngineCounters::ForEach; constant, may be empty.
};

using Transaction = GuardedEngine::Transaction;

}  // namespace cachecore

#endif  // CACHECORE_CACHE_GUARDED_ENGINE_H_
