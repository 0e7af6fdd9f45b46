#include "cachecore/store/rocksdb_counters.h"

#include <glog/logging.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <optional>
#include <string>
#include <string_view>

#include "cachecore/store/metadata_schema.h"

namespace cachecore {
namespace {

// How far a counter whose record was damaged jumps past every number still seen, so that what was
// reserved and not recorded does not recur either.
constexpr uint64_t kCounterRecoverySkip = uint64_t{1} << 24;

uint64_t FirstOf(Counter counter) {
  switch (counter) {
    case Counter::kMsgId:
      return 0;
    case Counter::kObjectNumber:
      return kFirstObjectNumber.value;
    case Counter::kObjectId:
    case Counter::kGeneration:
      break;
  }
  return 1;
}

}  // namespace

// Where a counter goes on that cannot be recorded: at first past what any earlier process of this
// boot took from the same record, as none takes one in each 64 ns.  Object numbers are the kernel's
// names of files for as long as it is mounted, so no gap is large enough for them.
Result<uint64_t> RocksDbCounters::NextUnrecorded(Counter counter, uint64_t recorded, uint64_t count,
                                                 const Status& why) {
  if (counter == Counter::kObjectNumber) return why;
  uint64_t& end = unrecorded_end_[static_cast<size_t>(counter)];
  uint64_t next = std::max(recorded, end);
  if (end == 0) {
    timespec now{};
    clock_gettime(CLOCK_BOOTTIME, &now);
    next +=
        (static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec)) /
        64;
  }
  end = next + count;
  return next;
}

Result<uint64_t> RocksDbCounters::Reserve(Counter counter, uint64_t count) {
  MutexLock lock(&mu_);
  const std::string key = schema::CounterKey(counter);
  uint64_t next = FirstOf(counter);
  rocksdb::WriteBatch batch;
  Result<std::optional<std::string>> value = db_->Get(key);
  if (!value.ok() && value.status().error() != EBADMSG) return std::move(value).status();
  if (!value.ok() || value->has_value()) {
    const Result<uint64_t> stored =
        value.ok() ? schema::DecodeCounter(counter, **value) : Result<uint64_t>(value.status());
    if (stored.ok()) {
      next = *stored;
    } else {
      if (value.ok()) batch.Put(schema::QuarantineKey({}, key), **value);
      ASSIGN_OR_RETURN(next, NextAfterDamage(counter));
      LOG(ERROR) << stored.status().message() << "; counting on from " << next;
    }
  }
  next = std::max(next, unrecorded_end_[static_cast<size_t>(counter)]);
  if (db_->in_memory()) {
    const Status lost(ENOSPC, "the metadata's disk takes no writes: nothing new can be named");
    ASSIGN_OR_RETURN(next, NextUnrecorded(counter, next, count, lost));
  }
  batch.Put(key, schema::EncodeCounter(counter, next + count));
  // Unsynced: the log keeps its order, so a record that uses a number cannot outlive this one.
  const Status written = db_->Write(&batch, Sync::kNo);
  if (!written.ok()) return NextUnrecorded(counter, next, count, written);
  return next;
}

Result<uint64_t> RocksDbCounters::NextAfterDamage(Counter counter) const {
  uint64_t seen = FirstOf(counter);
  const auto see = [&](std::string_view key, std::string_view value) {
    uint64_t number = 0;
    if (counter == Counter::kObjectNumber) {
      number = schema::NumberOf(key);
    } else if (const Result<JournalRecord> request = schema::DecodeJournal(key, value);
               request.ok() && counter != Counter::kObjectId) {
      number = counter == Counter::kMsgId ? request->msg_id.value : request->generation.value;
    }
    seen = std::max(seen, number);
    return true;
  };
  const std::string kinds = counter == Counter::kObjectNumber
                                ? std::string{schema::kObject, schema::kVolume}
                                : std::string{schema::kJournal};
  for (const char kind : kinds) {
    const Status scanned = db_->Scan(std::string(1, kind), see);
    // Behind a bad block nothing is seen; the skip has to do for that too.
    if (!scanned.ok() && scanned.error() != EBADMSG) return scanned;
  }
  return seen + kCounterRecoverySkip;
}

}  // namespace cachecore
