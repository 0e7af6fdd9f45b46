#include "cachecore/rocksdb_database.h"

#include <glog/logging.h>
#include <rocksdb/cache.h>
#include <rocksdb/merge_operator.h>
#include <rocksdb/options.h>
#include <rocksdb/slice.h>
#include <rocksdb/table.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <deque>
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

// A dump must not rotate the LOG file of the daemon that has the database open.
class NullLogger : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char* /*format*/, va_list /*arguments*/) override {}
};

// With paranoid checks, one bad block that a compaction meets makes the database read-only for
// good. Without, reads of it are refused all the same (checksums are always verified), but recovery
// goes on after a damaged log record, and a write after a half-written one.  So they are on while
// the log is replayed and off later, when Write() keeps half-written records out of the way.
enum class Paranoid : bool { kNo, kYes };

rocksdb::Options MakeOptions(Paranoid paranoid) {
  rocksdb::Options options;
  options.merge_operator = std::make_shared<PresenceMergeOperator>();
  options.write_buffer_size = size_t{4} << 20;
  options.max_write_buffer_number = 2;
  options.max_open_files = 256;
  options.max_background_jobs = 2;
  options.compression = rocksdb::kNoCompression;
  options.keep_log_file_num = 2;
  options.max_log_file_size = size_t{1} << 20;
  options.info_log_level = rocksdb::WARN_LEVEL;
  options.stats_dump_period_sec = 0;
  options.max_manifest_file_size = uint64_t{4} << 20;
  // The log of a killed machine ends anywhere: everything before the first bad record counts.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  options.paranoid_checks = paranoid == Paranoid::kYes;
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

}  // namespace

Result<std::unique_ptr<RocksDbDatabase>> RocksDbDatabase::Open(const std::string& directory) {
  RETURN_IF_ERROR(MakeWritable(directory));
  rocksdb::Options options = MakeOptions(Paranoid::kYes);
  options.create_if_missing = true;
  rocksdb::DB* db = nullptr;
  rocksdb::Status status = rocksdb::DB::Open(options, directory, &db);
  if (status.ok()) delete db;
  // A missing or short table file fails the first opening only: it costs the records in it.
  if (status.IsCorruption()) LOG(WARNING) << directory << ": " << status.ToString();
  if (status.ok() || status.IsCorruption()) {
    status = rocksdb::DB::Open(MakeOptions(Paranoid::kNo), directory, &db);
  }
  if (status.ok()) return std::unique_ptr<RocksDbDatabase>(new RocksDbDatabase(db));
  if (IsLockHeld(status)) {
    return Status(EBUSY, directory +
                             " is in use by another holdfastd: stop it, or use another "
                             "--cache-dir");
  }
  Status error = FromRocksDb(status, "open metadata in " + directory);
  if (error.error() != EBADMSG) return error;
  return Status(EBADMSG, error.message() + ": remove the cache directory to start empty");
}

Result<std::unique_ptr<RocksDbDatabase>> RocksDbDatabase::OpenReadOnly(
    const std::string& directory) {
  if (access((directory + "/CURRENT").c_str(), R_OK) != 0) {
    const int error = errno;
    return Status(error, Status::FromErrno(error, "read metadata in " + directory).message() +
                             ": is it the cache directory of a Holdfast?");
  }
  rocksdb::Options options = MakeOptions(Paranoid::kYes);
  options.info_log = std::make_shared<NullLogger>();
  // Every file is opened now, before a compaction of the running daemon removes it.
  options.max_open_files = -1;
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status = rocksdb::DB::OpenForReadOnly(options, directory, &db);
  if (!status.ok()) return FromRocksDb(status, "read metadata in " + directory);
  return std::unique_ptr<RocksDbDatabase>(new RocksDbDatabase(db));
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

// A write that failed may have left half a record in the log, and recovery stops at it: whatever
// came after would be lost.  So after a failure nothing is written until the log has been left
// behind.
Status RocksDbDatabase::Write(rocksdb::WriteBatch* batch, Sync sync) {
  if (log_failed_) {
    MutexLock lock(&recovery_mu_);
    if (log_failed_) {
      rocksdb::Status status = db_->Resume();
      if (status.ok()) status = db_->Flush(rocksdb::FlushOptions());
      if (!status.ok()) return FromRocksDb(status, "leave a failed metadata log behind");
      log_failed_ = false;
    }
  }
  rocksdb::WriteOptions options;
  options.sync = sync == Sync::kYes;
  const rocksdb::Status status = db_->Write(options, batch);
  if (!status.ok()) log_failed_ = true;
  return FromRocksDb(status, "write metadata");
}

}  // namespace cachecore
