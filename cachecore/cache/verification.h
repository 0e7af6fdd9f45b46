// Verification: bytes of slices, checked against the digest of their object.
//
// Model    a block of an object with a digest is hashed each time it is read.  A wrong one is
//          recorded as absent, and fetched again.  Recheck reads what is present of an object from
//          the disk, for an operator.
// Errors   EAGAIN: bytes were wrong, are absent now, and can be waited for.  EIO for what the disk
//          does not give.
// Threads  thread-safe.  Reads the disk; no lock is held meanwhile.
// Owns     nothing; the parts that it is given outlive it.
// Crash    a wrong block that was found and not recorded is found again by the next daemon.

#ifndef CACHECORE_CACHE_VERIFICATION_H_
#define CACHECORE_CACHE_VERIFICATION_H_

#include <cstdint>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "cachecore/base/byte_range.h"
#include "cachecore/base/clock.h"
#include "cachecore/base/mutex.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/cache/catalogue.h"
#include "cachecore/cache/durability.h"
#include "cachecore/cache/guarded_engine.h"
#include "cachecore/cache/reads.h"
#include "cachecore/logging/log_limiter.h"
#include "cachecore/verity/tree_cache.h"

namespace cachecore {

// What Recheck has found in a window of an object.
struct RecheckResult {
  uint64_t checked_bytes = 0;  // That are present.
  uint64_t wrong_bytes = 0;    // Of these: they, or a tree block above them.
  uint64_t healed_bytes = 0;   // Of these: fetched again, and right.
  uint64_t next = 0;           // Where the next window begins.
  std::string error;           // Why not all of them are healed.
};

class Verification {
 public:
  static constexpr size_t kCheckedTreeBlocks = 8192;  // In memory: 32 MiB, for 4 GiB of data.

  // `trees` has the tree blocks that were checked before.
  Verification(const Clock& clock, TreeCache* trees, LogLimiter* log, GuardedEngine* core,
               Catalogue* catalogue, Durability* durability, Reads* reads);

  // The bytes of a slice with a digest, checked, at least those of its range: reads the blocks that
  // it touches into `buffer`, whose first byte is that of the first block.  EAGAIN: see above.
  Status ReadChecked(const FileSlice& slice, std::span<uint8_t> buffer)
      EXCLUDES(core_->mu, catalogue_->load_mu);
  // The bytes of a slice that are not all in its file, into `out`, which is as long as its range.
  // EAGAIN: see above.
  Status ReadAssembled(const FileSlice& slice, std::span<uint8_t> out)
      EXCLUDES(core_->mu, catalogue_->load_mu);
  // Whether `range` of `file`, which is laid out as the object's data file and sealed, has the
  // object's bytes.
  bool IsRight(const ObjectVerity& object, const UniqueFd& file, ByteRange range);

  // Reads what is present of a window again, from the disk, tree and all; has what is wrong fetched
  // again and waits for that, `patience` at most.  EOPNOTSUPP for an object without a digest,
  // ECANCELED once `stop` is asked for.
  Result<RecheckResult> Recheck(ObjectNumber number, ByteRange window, Duration patience,
                                const std::stop_token& stop)
      EXCLUDES(core_->mu, catalogue_->load_mu);

 private:
  // One call of Recheck.
  struct Check {
    ObjectNumber number;
    FileSlice slice;
    Duration deadline;
    const std::stop_token& stop;
    TreeCache trees{kCheckedTreeBlocks};  // Nothing that was read before counts.
    std::vector<uint8_t> buffer = {};
    RecheckResult result = {};
  };

  Result<FileSlice> FindSlice(ObjectNumber number, ByteRange window)
      EXCLUDES(core_->mu, catalogue_->load_mu);
  // What is present from `at` on, to the end of `slice` or of a step.
  Result<ByteRange> NextPresent(ObjectNumber number, uint64_t at, uint64_t end)
      EXCLUDES(core_->mu, catalogue_->load_mu);
  void CheckStep(Check* check, ByteRange step) EXCLUDES(core_->mu, catalogue_->load_mu);
  Status Heal(Check* check, ByteRange range) EXCLUDES(core_->mu, catalogue_->load_mu);
  Status AwaitRange(ObjectNumber number, ByteRange range, Duration patience,
                    const std::stop_token& stop) EXCLUDES(core_->mu, catalogue_->load_mu);

  const Clock& clock_;
  TreeCache* const trees_;
  LogLimiter* const log_;
  GuardedEngine* const core_;
  Catalogue* const catalogue_;
  Durability* const durability_;
  Reads* const reads_;
};

}  // namespace cachecore

#endif  // CACHECORE_CACHE_VERIFICATION_H_
