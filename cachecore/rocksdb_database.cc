#include "cachecore/rocksdb_database.h"

#include <glog/logging.h>
#include <rocksdb/cache.h>
#include <rocksdb/env.h>
#include <rocksdb/listener.h>
#include <rocksdb/merge_operator.h>
#include <rocksdb/options.h>
#include <rocksdb/slice.h>
#include <rocksdb/table.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "cachecore/metadata_schema.h"

namespace cachecore {
namespace {

std::string_view View(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

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
  GlogLogger() : Logger(rocksdb::WARN_LEVEL) {}
  using rocksdb::Logger::Logv;
  void Logv(const rocksdb::InfoLogLevel level, const char* format, va_list arguments) override {
    if (level < GetInfoLogLevel() || level == rocksdb::HEADER_LEVEL) return;
    char text[1024];
    std::vsnprintf(text, sizeof(text), format, arguments);
    LOG(WARNING) << "rocksdb: " << text;
  }
  void Logv(const char* /*format*/, va_list /*arguments*/) override {}  // Headers.
};

// What stops the database.  An error that it deems final would need a new process, yet its cause (a
// full disk, a compaction that met one bad block) is nothing that a cache should die of.
class ErrorPolicy : public rocksdb::EventListener {
 public:
  explicit ErrorPolicy(std::shared_ptr<std::atomic<bool>> met_bad_block)
      : met_bad_block_(std::move(met_bad_block)) {}

  void OnBackgroundError(rocksdb::BackgroundErrorReason reason, rocksdb::Status* error) override {
    if (reason == rocksdb::BackgroundErrorReason::kCompaction && error->IsCorruption()) {
      // Reads of the block are refused all the same; only space is no longer won back.
      *error = rocksdb::Status::OK();
      *met_bad_block_ = true;
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
  const std::shared_ptr<std::atomic<bool>> met_bad_block_;
};

rocksdb::Options MakeOptions(std::shared_ptr<std::atomic<bool>> met_bad_block) {
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
  options.info_log = std::make_shared<GlogLogger>();
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
  options.listeners.push_back(std::make_shared<ErrorPolicy>(std::move(met_bad_block)));
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
  return Status(error, doing + ": " + status.ToString());
}

// RocksDB keeps no errno, so the directory is tried before it is: these are the mistakes people
// make.
Status MakeWritable(const std::string& directory) {
  const std::string advice = ": choose a --cache-dir that this user can write to";
  if (mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    const int error = errno;
    return Status(error,
                  Status::FromErrno(error, "make directory " + directory).message() + advice);
  }
  // The trailing slash makes a regular file ENOTDIR.
  if (access((directory + "/").c_str(), R_OK | W_OK | X_OK) != 0) {
    const int error = errno;
    return Status(error, Status::FromErrno(error, "write to " + directory).message() + advice);
  }
  return Status();
}

// RocksDB has no status of its own for this; both of its messages, for a lock held elsewhere and
// one held in this process, are covered by a test.
bool IsLockHeld(const rocksdb::Status& status) {
  const std::string text = status.ToString();
  return text.find("While lock file") != std::string::npos ||
         text.find("lock hold by current process") != std::string::npos;
}

bool IsDamage(const rocksdb::Status& status) {
  const bool file_is_gone = status.IsIOError() && !IsLockHeld(status) &&
                            status.ToString().find("No such file") != std::string::npos;
  return status.IsCorruption() || status.IsPathNotFound() || file_is_gone;
}

// Without CURRENT the database would be taken for a new one and its tables for rubbish, but its
// logs would be replayed: presence without the objects and counters that it belongs to.
bool LosesItsCurrent(const std::string& directory) {
  std::error_code error;
  if (std::filesystem::exists(directory + "/CURRENT", error)) return false;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    const std::string extension = entry.path().extension();
    if (extension == ".sst") return true;
    if (extension == ".log" && entry.file_size(error) > 0) return true;
  }
  return false;
}

}  // namespace

Result<std::unique_ptr<RocksDbDatabase>> RocksDbDatabase::Open(const std::string& directory) {
  RETURN_IF_ERROR(MakeWritable(directory));
  auto met_bad_block = std::make_shared<std::atomic<bool>>(false);
  rocksdb::Options options = MakeOptions(met_bad_block);
  options.create_if_missing = true;
  rocksdb::DB* db = nullptr;
  rocksdb::Status status = LosesItsCurrent(directory)
                               ? rocksdb::Status::Corruption(directory + "/CURRENT is missing")
                               : rocksdb::DB::Open(options, directory, &db);
  const bool repair = IsDamage(status);
  if (repair) {
    LOG(ERROR) << "metadata in " << directory << " is damaged (" << status.ToString()
               << "): repairing it; what its remaining files hold is kept, the rest will be "
                  "fetched again";
    status = rocksdb::RepairDB(directory, options);
    if (status.ok()) status = rocksdb::DB::Open(options, directory, &db);
  }
  if (status.ok()) {
    std::unique_ptr<RocksDbDatabase> database(new RocksDbDatabase(db, met_bad_block));
    database->repaired_ = repair;
    return database;
  }
  if (IsLockHeld(status)) {
    return Status(EBUSY, directory +
                             " is in use by another holdfastd: stop it, or use another "
                             "--cache-dir");
  }
  const Status error = FromRocksDb(status, "open metadata in " + directory);
  const bool damaged = repair || error.error() == EBADMSG;
  return Status(damaged ? EBADMSG : error.error(),
                error.message() + (damaged ? ": remove the cache directory to start empty"
                                           : ": mend the disk or its permissions, or choose "
                                             "another --cache-dir"));
}

void RocksDbDatabase::WarmUp() {
  const std::unique_ptr<rocksdb::Env> memory(rocksdb::NewMemEnv(rocksdb::Env::Default()));
  rocksdb::Options options = MakeOptions(std::make_shared<std::atomic<bool>>(false));
  options.env = memory.get();
  options.create_if_missing = true;
  if (!options.env->CreateDir("/scratch").ok()) return;  // Else RocksDB warns of its absence.
  // The second life replays the log of the first and makes a table of it.
  for (int life = 0; life < 2; ++life) {
    rocksdb::DB* opened = nullptr;
    if (!rocksdb::DB::Open(options, "/scratch", &opened).ok()) return;
    const std::unique_ptr<rocksdb::DB> db(opened);
    rocksdb::WriteBatch batch;
    batch.Put("key", "value");
    batch.DeleteRange("a", "b");
    if (!db->Write({}, &batch).ok()) return;
    const std::unique_ptr<rocksdb::Iterator> records(db->NewIterator({}));
    for (records->SeekToFirst(); records->Valid(); records->Next()) {
    }
  }
}

Result<std::unique_ptr<RocksDbDatabase>> RocksDbDatabase::OpenReadOnly(
    const std::string& directory) {
  if (access((directory + "/CURRENT").c_str(), R_OK) != 0) {
    const int error = errno;
    return Status(error, Status::FromErrno(error, "read metadata in " + directory).message() +
                             ": is it the cache directory of a Holdfast?");
  }
  auto met_bad_block = std::make_shared<std::atomic<bool>>(false);
  rocksdb::Options options = MakeOptions(met_bad_block);
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status = rocksdb::DB::OpenForReadOnly(options, directory, &db);
  if (!status.ok()) return FromRocksDb(status, "read metadata in " + directory);
  return std::unique_ptr<RocksDbDatabase>(new RocksDbDatabase(db, met_bad_block));
}

std::optional<std::string> RocksDbDatabase::LastKey(const std::string& prefix) const {
  const std::string end = schema::PrefixEnd(prefix);
  const rocksdb::Slice end_slice(end);
  rocksdb::ReadOptions options;
  options.iterate_upper_bound = &end_slice;
  const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(options));
  it->SeekToLast();
  if (!it->Valid() || !it->key().starts_with(prefix)) return std::nullopt;
  return it->key().ToString();
}

Result<std::optional<std::string>> RocksDbDatabase::Get(const std::string& key) const {
  std::string value;
  const rocksdb::Status status = db_->Get(rocksdb::ReadOptions(), key, &value);
  if (status.IsNotFound()) return std::optional<std::string>();
  if (!status.ok()) return FromRocksDb(status, "read metadata");
  return std::optional<std::string>(std::move(value));
}

Status RocksDbDatabase::Scan(const std::string& prefix, const Visit& visit) const {
  const std::string end = prefix.empty() ? std::string() : schema::PrefixEnd(prefix);
  const rocksdb::Slice end_slice(end);
  rocksdb::ReadOptions options;
  if (!end.empty()) options.iterate_upper_bound = &end_slice;
  const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(options));
  for (it->Seek(prefix); it->Valid(); it->Next()) {
    if (!visit(View(it->key()), View(it->value()))) return Status();
  }
  return FromRocksDb(it->status(), "scan metadata");
}

// A failed write may have left half a record in the log, and recovery stops at it: whatever came
// after would be lost.  So RocksDB refuses writes from then on, until Resume() has put what it
// holds into a table file and begun a new log.
Status RocksDbDatabase::Write(rocksdb::WriteBatch* batch, Sync sync) {
  if (has_failed_) {
    MutexLock lock(&resume_mu_);
    if (has_failed_) {
      const rocksdb::Status status = db_->Resume();
      if (!status.ok()) return FromRocksDb(status, "resume writing metadata");
      has_failed_ = false;
    }
  }
  if (met_bad_block_->exchange(false)) {
    // It would be tried again every second for ever.
    LOG(WARNING) << "a damaged table file: no more compactions until the next start";
    RETURN_IF_ERROR(FromRocksDb(db_->SetOptions({{"disable_auto_compactions", "true"}}),
                                "end metadata compactions"));
  }
  rocksdb::WriteOptions options;
  options.sync = sync == Sync::kYes;
  const rocksdb::Status status = db_->Write(options, batch);
  if (!status.ok()) has_failed_ = true;
  return FromRocksDb(status, "write metadata");
}

}  // namespace cachecore
