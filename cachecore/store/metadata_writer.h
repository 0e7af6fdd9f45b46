// MetadataWriter: writes to the metadata store what this daemon can go on without.
//
// Model    while the store takes no writes, reads are served and what is fetched meanwhile is
//          fetched again after a restart.  The first failure and the end of the trouble are logged.
// Errors   a batch that is not written is reported to the caller as false, and may be tried again.
// Threads  thread-safe.
// Owns     nothing; the store outlives it.
// Crash    a batch that was written without a sync survives the death of the daemon, not of the
//          machine.  One that was not written is fetched or asked for again by the next daemon.

#ifndef CACHECORE_STORE_METADATA_WRITER_H_
#define CACHECORE_STORE_METADATA_WRITER_H_

#include <string>

#include "cachecore/base/mutex.h"
#include "cachecore/base/status.h"
#include "cachecore/store/metadata_store.h"

namespace cachecore {

class MetadataWriter {
 public:
  explicit MetadataWriter(MetadataStore* store) : store_(store) {}

  // Writes the batch without a sync.  True for an empty one.
  bool CommitOrLog(const MetadataBatch& batch) EXCLUDES(mu_);
  // Has the store write to its disk again where that has taken no writes.
  void Heal() EXCLUDES(mu_);
  // Why the store's disk takes no writes now; "" when it does.
  std::string trouble() EXCLUDES(mu_);

 private:
  void NoteStore(const Status& status) EXCLUDES(mu_);

  MetadataStore* const store_;
  Mutex mu_;
  std::string trouble_ GUARDED_BY(mu_);
};

}  // namespace cachecore

#endif  // CACHECORE_STORE_METADATA_WRITER_H_
