#include "cachecore/store/metadata_writer.h"

#include <glog/logging.h>

namespace cachecore {

bool MetadataWriter::CommitOrLog(const MetadataBatch& batch) {
  if (batch.empty()) return true;
  // One that succeeds may have gone to memory only: Heal knows.
  const Status status = store_->Commit(batch, Sync::kNo);
  if (!status.ok()) NoteStore(status);
  return status.ok();
}

// Says it once a spell.
void MetadataWriter::NoteStore(const Status& status) {
  MutexLock lock(&mu_);
  if (!status.ok() && trouble_.empty()) {
    LOG(ERROR) << "metadata cannot be written; reads go on, what is fetched now will be fetched "
                  "again after a restart: "
               << status.message();
  }
  if (status.ok() && !trouble_.empty()) LOG(WARNING) << "metadata can be written again";
  trouble_ = status.ok() ? "" : status.message();
}

void MetadataWriter::Heal() { NoteStore(store_->Heal()); }

std::string MetadataWriter::trouble() {
  MutexLock lock(&mu_);
  return trouble_;
}

}  // namespace cachecore
