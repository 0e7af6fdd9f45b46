#include "cachecore/store/rocksdb_options.h"

#include <glog/logging.h>
#include <rocksdb/cache.h>
#include <rocksdb/env.h>
#include <rocksdb/listener.h>
#include <rocksdb/merge_operator.h>
#include <rocksdb/slice.h>
#include <rocksdb/table.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <deque>
#include <string_view>
#include <utility>
#include <vector>

#include "cachecore/store/metadata_schema.h"

namespace cachecore {
namespace {

// Never fails: MergePresence turns damage into a value that readers see as damaged.
class PresenceMergeOperator : public rocksdb::MergeOperator {
 public:
  bool FullMergeV2(const MergeOperationInput& in, MergeOperationOutput* out) const override {
    std::vector<std::string_view> values;
    if (in.existing_value != nullptr) values.push_back(View(*in.existing_value));
    for (const rocksdb::Slice& operand : in.operand_list) values.push_back(View(operand));
    out->new_value = schema::MergePresence(values);
    return true;
  }
  bool PartialMergeMulti(const rocksdb::Slice& /*key*/, const std::deque<rocksdb::Slice>& operands,
                         std::string* new_value, rocksdb::Logger* /*logger*/) const override {
    std::vector<std::string_view> values;
    values.reserve(operands.size());
    for (const rocksdb::Slice& operand : operands) values.push_back(View(operand));
    *new_value = schema::MergePresence(values);
    return true;
  }
  const char* Name() const override { return "holdfast.presence"; }
};

// RocksDB's warnings in the program's own log.  Its LOG file would be a trap: a full disk fails a
// write to it, and the next write to it aborts the process (an assertion in 7.8 as Debian builds
// it). And a dump must not rotate the LOG of the daemon that has the database open.
class GlogLogger : public rocksdb::Logger {
 public:
  explicit GlogLogger(std::shared_ptr<RocksDbSignals> signals)
      : Logger(rocksdb::WARN_LEVEL), signals_(std::move(signals)) {}
  using rocksdb::Logger::Logv;
  void Logv(const rocksdb::InfoLogLevel level, const char* format, va_list arguments) override {
    if (level < GetInfoLogLevel() || level == rocksdb::HEADER_LEVEL || signals_->quiet) return;
    char text[1024];
    std::vsnprintf(text, sizeof(text), format, arguments);
    LOG(WARNING) << "rocksdb: " << text;
  }
  void Logv(const char* /*format*/, va_list /*arguments*/) override {}  // Headers.

 private:
  const std::shared_ptr<RocksDbSignals> signals_;
};

// What stops the database.  An error that it deems final would need a new process, yet its cause (a
// full disk, a compaction that met one bad block) must not end a cache.
class ErrorPolicy : public rocksdb::EventListener {
 public:
  explicit ErrorPolicy(std::shared_ptr<RocksDbSignals> signals) : signals_(std::move(signals)) {}

  void OnBackgroundError(rocksdb::BackgroundErrorReason reason, rocksdb::Status* error) override {
    if (reason == rocksdb::BackgroundErrorReason::kCompaction && error->IsCorruption()) {
      // Reads of the block are refused all the same; only space is no longer won back.
      *error = rocksdb::Status::OK();
      signals_->met_bad_block = true;
    } else if (error->IsIOError() && error->severity() > rocksdb::Status::kHardError) {
      *error = rocksdb::Status(*error, rocksdb::Status::kHardError);  // Resume() may be tried.
    }
  }
  // Write() is the only one to resume: never two at once.
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason /*reason*/, rocksdb::Status /*error*/,
                            bool* auto_recovery) override {
    *auto_recovery = false;
  }

 private:
  const std::shared_ptr<RocksDbSignals> signals_;
};

}  // namespace

rocksdb::Options MakeRocksDbOptions(std::shared_ptr<RocksDbSignals> signals) {
  rocksdb::Options options;
  options.merge_operator = std::make_shared<PresenceMergeOperator>();
  options.write_buffer_size = size_t{4} << 20;
  options.max_write_buffer_number = 2;
  // Every table file is opened at the start, a few dozen at most: one that cannot be must be
  // refused then, as 7.8 crashes in an iterator that meets it later.  And a dump has its files open
  // before a compaction of the running daemon removes them.
  options.max_open_files = -1;
  options.max_background_jobs = 2;
  options.compression = rocksdb::kNoCompression;
  options.info_log = std::make_shared<GlogLogger>(signals);
  options.stats_dump_period_sec = 0;
  // A start is a pause for every reader that waits: nothing is read that can be read later.
  options.skip_stats_update_on_db_open = true;
  options.skip_checking_sst_file_sizes_on_db_open = true;
  // Never let writes wait for compactions: one that meets a bad block does not end.
  options.level0_slowdown_writes_trigger = 1 << 30;
  options.level0_stop_writes_trigger = 1 << 30;
  options.max_manifest_file_size = uint64_t{4} << 20;
  // The log of a killed machine ends anywhere: everything before the first bad record counts.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  options.listeners.push_back(std::make_shared<ErrorPolicy>(std::move(signals)));
  // Log recovery stops at the first damaged record; a write after a half-written one is refused.
  options.paranoid_checks = true;
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(size_t{4} << 20, /*num_shard_bits=*/1);
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

Status FromRocksDb(const rocksdb::Status& status, const std::string& doing) {
  if (status.ok()) return Status();
  int error = EIO;
  if (status.IsCorruption()) error = EBADMSG;
  if (status.IsNoSpace()) error = ENOSPC;
  for (const int named : {EDQUOT, EROFS}) {
    if (status.ToString().find(std::strerror(named)) != std::string::npos) error = named;
  }
  return Status(error, doing + ": " + status.ToString());
}

// RocksDB has no status of its own for this; both of its messages, for a lock held elsewhere and
// one held in this process, are covered by a test.
bool IsRocksDbLockHeld(const rocksdb::Status& status) {
  const std::string text = status.ToString();
  return text.find("While lock file") != std::string::npos ||
         text.find("lock hold by current process") != std::string::npos;
}

bool IsRocksDbDamage(const rocksdb::Status& status) {
  const bool file_is_gone = status.IsIOError() && !IsRocksDbLockHeld(status) &&
                            status.ToString().find("No such file") != std::string::npos;
  return status.IsCorruption() || status.IsPathNotFound() || file_is_gone;
}

}  // namespace cachecore
