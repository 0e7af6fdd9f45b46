// Reads: reads of objects, from the call to a slice of a data file, or to an error.
//
// Model    a read of present bytes (a hit) gets its slice at once.  A read of absent bytes waits in
//          the engine, which asks the fetcher for them.  It ends once: with the slice, with an
//          error, or because it is withdrawn.
// Errors   Status with the errno that the reader gets.
// Threads  thread-safe.  A callback runs on the thread that completes it, and may run before Read
//          returns.
// Owns     which objects refuse reads.  The parts that it is given outlive it.
// Cost     a hit takes the engine's lock once, reserves no id and collects no effects.
// Crash    memory only: the kernel sends the reads to the next daemon again.
// See      docs/design.md "Life of a read".

#ifndef CACHECORE_CACHE_READS_H_
#define CACHECORE_CACHE_READS_H_

#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "cachecore/base/byte_range.h"
#include "cachecore/base/clock.h"
#include "cachecore/base/mutex.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/cache/catalogue.h"
#include "cachecore/cache/guarded_engine.h"
#include "cachecore/cache/id_reserve.h"
#include "cachecore/store/data_store.h"

namespace cachecore {

// Bytes that are in a data file now; `range` is clipped to the object.
struct FileSlice {
  std::shared_ptr<const UniqueFd> file;
  ByteRange range;
  std::shared_ptr<const ObjectVerity> verity;  // Set: only what ReadChecked gives may be used.
  std::vector<ThroughPart> through = {};  // Not empty: only what ReadAssembled gives may be used.
};

using SliceDone = std::function<void(const Status&, const FileSlice&)>;

class Reads {
 public:
  // `timeout`: of a read that waits; zero waits for ever.
  Reads(Duration timeout, const DataStore& data, IdReserve* ids, GuardedEngine* core,
        Catalogue* catalogue);

  // The slice if all of it is present, nullopt if some of it must be fetched.
  Result<std::optional<FileSlice>> TryRead(ObjectNumber number, ByteRange range)
      EXCLUDES(core_->mu, catalogue_->load_mu);
  // Calls `done` once, when the range is present or cannot be.  Null when it was called already.
  ReadTicket Read(ObjectNumber number, ByteRange range, SliceDone done, Reader reader)
      EXCLUDES(core_->mu, catalogue_->load_mu);
  // Ends a read with `why`; false when it has ended.
  bool Withdraw(const ReadTicket& read, const Status& why) EXCLUDES(core_->mu);

  // A read of these bytes, which are present, got an error, or fewer: logs which and why, once.
  void NoteUnreadable(ObjectNumber number, const FileSlice& slice) EXCLUDES(core_->mu);
  // A read has failed otherwise than by its `done`.
  void NoteFailedRead() EXCLUDES(core_->mu);

  // Ends every read that waits for the object with EIO, and each later one that would have to wait,
  // until it is called with false.  The next daemon does not know of it.
  void SetRefusesReads(ObjectNumber number, bool refuses) EXCLUDES(core_->mu);
  // Ends the requests for objects that no reader uses, no read waits for, and that are not
  // `wanted`: a volume's key, an object's cookie.  `wanted` is called with the engine's lock held,
  // and does no more than look.  A reader that `is_gone` does not count.
  void EndUnwanted(const std::function<bool(const std::string&, const std::string&)>& wanted,
                   const std::function<bool(pid_t)>& is_gone) EXCLUDES(core_->mu);

 private:
  bool MayAskAhead(const Object& object) const REQUIRES(core_->mu);
  void AskAhead(ObjectNumber number, ByteRange ahead) EXCLUDES(core_->mu);
  // Why no read of the object may wait now, or success.
  Status CheckMayWait(ObjectNumber number) const REQUIRES(core_->mu);

  const Duration timeout_;
  const DataStore& data_;
  IdReserve* const ids_;
  GuardedEngine* const core_;
  Catalogue* const catalogue_;
  std::unordered_set<ObjectNumber> refuses_reads_ GUARDED_BY(core_->mu);
};

}  // namespace cachecore

#endif  // CACHECORE_CACHE_READS_H_
