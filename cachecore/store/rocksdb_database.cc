#include "cachecore/store/rocksdb_database.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <rocksdb/env.h>
#include <rocksdb/slice.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "cachecore/store/metadata_schema.h"
#include "cachecore/store/rocksdb_memory_copy.h"

namespace cachecore {
namespace {

// A disk that takes nothing is not tried at each write.
constexpr std::chrono::milliseconds kTryAgainAfter(200);

// RocksDB keeps no errno, so the directory is tried first: these are the usual mistakes.
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

Status InUse(const std::string& directory) {
  return Status(EBUSY, directory +
                           " is in use by another holdfastd: stop it, or use another "
                           "--cache-dir");
}

// RocksDB releases its own lock between an open that fails and the next one; this one stays held.
// It needs nothing of the disk but that the directory can be opened.
Result<UniqueFd> LockDirectory(const std::string& directory) {
  UniqueFd lock(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!lock.valid()) return Status::FromErrno(errno, "open " + directory);
  if (flock(lock.get(), LOCK_EX | LOCK_NB) == 0) return lock;
  if (errno == EWOULDBLOCK) return InUse(directory);
  return Status::FromErrno(errno, "lock " + directory);
}

// The errors of a write to a disk that can be read.
bool MayBeReadable(const Status& status) {
  return status.error() != EBUSY && status.error() != EBADMSG && status.error() != EPROTO;
}

}  // namespace

RocksDbDatabase::RocksDbDatabase(std::string directory, UniqueFd lock)
    : directory_(std::move(directory)),
      lock_(std::move(lock)),
      signals_(std::make_shared<RocksDbSignals>()) {}

std::shared_ptr<rocksdb::DB> RocksDbDatabase::Db() const {
  MutexLock lock(&db_mu_);
  return db_;
}

void RocksDbDatabase::SetDb(std::shared_ptr<rocksdb::DB> db) {
  MutexLock lock(&db_mu_);
  db_.swap(db);
}

Result<std::unique_ptr<RocksDbDatabase>> RocksDbDatabase::Open(const std::string& directory) {
  const Status writable = MakeWritable(directory);
  std::error_code error;
  if (!writable.ok() && !std::filesystem::exists(directory + "/CURRENT", error)) return writable;
  ASSIGN_OR_RETURN(UniqueFd lock, LockDirectory(directory));
  std::unique_ptr<RocksDbDatabase> database(new RocksDbDatabase(directory, std::move(lock)));
  Status opened = writable.ok() ? database->OpenOnDisk() : writable;
  // A disk that is full, or takes no writes any more, may still hold everything there is.
  if (!opened.ok() && MayBeReadable(opened)) {
    if (database->FallBackToMemory(opened).ok()) return database;
  }
  RETURN_IF_ERROR(opened);
  return database;
}

Status RocksDbDatabase::OpenOnDisk() {
  rocksdb::Options options = MakeRocksDbOptions(signals_);
  options.create_if_missing = true;
  rocksdb::DB* db = nullptr;
  rocksdb::Status status = LosesItsCurrent(directory_)
                               ? rocksdb::Status::Corruption(directory_ + "/CURRENT is missing")
                               : rocksdb::DB::Open(options, directory_, &db);
  const bool repair = IsRocksDbDamage(status);
  if (repair) {
    // A repair that cannot write moves aside what it could not keep.
    RETURN_IF_ERROR(CheckRoomForRocksDb(directory_)
                        .WithContext("metadata is damaged and there is no room to repair it"));
    LOG(ERROR) << "metadata in " << directory_ << " is damaged (" << status.ToString()
               << "): repairing it; what its remaining files hold is kept, the rest will be "
                  "fetched again";
    status = rocksdb::RepairDB(directory_, options);
    if (status.ok()) status = rocksdb::DB::Open(options, directory_, &db);
  }
  if (status.ok()) {
    repaired_ = repaired_ || repair;
    SetDb(std::shared_ptr<rocksdb::DB>(db));
    return Status();
  }
  if (IsRocksDbLockHeld(status)) return InUse(directory_);
  const Status error = FromRocksDb(status, "open metadata in " + directory_);
  const bool damaged = repair || error.error() == EBADMSG;
  return Status(damaged ? EBADMSG : error.error(),
                error.message() + (damaged ? ": remove the cache directory to start empty"
                                           : ": mend the disk or its permissions, or choose "
                                             "another --cache-dir"));
}

Status RocksDbDatabase::FallBackToMemory(const Status& why) {
  SetDb(nullptr);  // RocksDB's lock goes with it.
  ASSIGN_OR_RETURN(std::shared_ptr<rocksdb::DB> copy, CopyRocksDbToMemory(directory_, signals_));
  SetDb(std::move(copy));
  in_memory_ = true;
  VLOG(1) << "metadata is kept in memory: " << why.message();  // Heal logs it.
  return Status();
}

Status RocksDbDatabase::Heal() {
  if (in_memory_) return MoveToDisk();
  return has_failed_ ? Resume(/*at_once=*/true) : Status();
}

Status RocksDbDatabase::MoveToDisk() {
  RETURN_IF_ERROR(CheckRoomForRocksDb(directory_));
  std::unique_lock alone(exchange_mu_);
  if (!in_memory_) return Status();
  const std::shared_ptr<rocksdb::DB> copy = Db();
  signals_->quiet = true;
  Status status = OpenOnDisk();
  if (status.ok()) status = WriteBackRocksDb(copy.get(), Db().get());
  signals_->quiet = false;
  if (!status.ok()) {
    SetDb(copy);
    return status;
  }
  in_memory_ = false;
  return Status();
}

void RocksDbDatabase::WarmUp() {
  const std::unique_ptr<rocksdb::Env> memory(rocksdb::NewMemEnv(rocksdb::Env::Default()));
  rocksdb::Options options = MakeRocksDbOptions(std::make_shared<RocksDbSignals>());
  options.env = memory.get();
  options.create_if_missing = true;
  if (!options.env->CreateDir("/scratch").ok()) return;  // Else RocksDB warns of its absence.
  // The second database replays the log of the first and makes a table of it.
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
  std::unique_ptr<RocksDbDatabase> database(new RocksDbDatabase(directory, UniqueFd()));
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status =
      rocksdb::DB::OpenForReadOnly(MakeRocksDbOptions(database->signals_), directory, &db);
  if (!status.ok()) return FromRocksDb(status, "read metadata in " + directory);
  database->SetDb(std::shared_ptr<rocksdb::DB>(db));
  return database;
}

std::optional<std::string> RocksDbDatabase::LastKey(const std::string& prefix) const {
  const std::string end = schema::PrefixEnd(prefix);
  const rocksdb::Slice end_slice(end);
  rocksdb::ReadOptions options;
  options.iterate_upper_bound = &end_slice;
  const std::shared_ptr<rocksdb::DB> db = Db();
  const std::unique_ptr<rocksdb::Iterator> it(db->NewIterator(options));
  it->SeekToLast();
  if (!it->Valid() || !it->key().starts_with(prefix)) return std::nullopt;
  return it->key().ToString();
}

Result<std::optional<std::string>> RocksDbDatabase::Get(const std::string& key) const {
  std::string value;
  const rocksdb::Status status = Db()->Get(rocksdb::ReadOptions(), key, &value);
  if (status.IsNotFound()) return std::optional<std::string>();
  if (!status.ok()) return FromRocksDb(status, "read metadata");
  return std::optional<std::string>(std::move(value));
}

Status RocksDbDatabase::Scan(const std::string& prefix, const Visit& visit) const {
  const std::string end = prefix.empty() ? std::string() : schema::PrefixEnd(prefix);
  const rocksdb::Slice end_slice(end);
  rocksdb::ReadOptions options;
  if (!end.empty()) options.iterate_upper_bound = &end_slice;
  const std::shared_ptr<rocksdb::DB> db = Db();
  const std::unique_ptr<rocksdb::Iterator> it(db->NewIterator(options));
  for (it->Seek(prefix); it->Valid(); it->Next()) {
    if (!visit(View(it->key()), View(it->value()))) return Status();
  }
  return FromRocksDb(it->status(), "scan metadata");
}

Status RocksDbDatabase::NoteFailure(const Status& why, bool of_sync) {
  MutexLock lock(&resume_mu_);
  trouble_ = why;
  sync_failed_ = sync_failed_ || of_sync;
  tried_at_ = std::chrono::steady_clock::now();
  has_failed_ = true;
  signals_->quiet = true;
  return why;
}

// A failed write may have left half a record in the log, and recovery stops at it: whatever came
// after would be lost.  So RocksDB refuses writes from then on, until Resume() has put what it
// holds into a table file and begun a new log.  After a failed sync it is not known what of the log
// the kernel has discarded, so it is abandoned in the same way.
Status RocksDbDatabase::Resume(bool at_once) {
  MutexLock lock(&resume_mu_);
  if (!has_failed_) return Status();
  const auto now = std::chrono::steady_clock::now();
  if (!at_once && now < tried_at_ + kTryAgainAfter) return trouble_;
  const std::shared_ptr<rocksdb::DB> db = Db();
  rocksdb::Status status = db->Resume();
  if (status.ok() && sync_failed_) status = db->Flush(rocksdb::FlushOptions());
  tried_at_ = std::chrono::steady_clock::now();
  trouble_ = FromRocksDb(status, "resume writing metadata in " + directory_);
  if (!trouble_.ok()) return trouble_;
  sync_failed_ = false;
  signals_->quiet = false;
  has_failed_ = false;
  return Status();
}

Status RocksDbDatabase::Write(rocksdb::WriteBatch* batch, Sync sync) {
  const std::shared_lock writing(exchange_mu_);
  const std::shared_ptr<rocksdb::DB> db = Db();
  rocksdb::WriteOptions options;
  if (in_memory_) {
    options.disableWAL = true;
    return FromRocksDb(db->Write(options, batch), "write metadata to memory");
  }
  if (has_failed_) RETURN_IF_ERROR(Resume(/*at_once=*/false));
  if (signals_->met_bad_block.exchange(false)) {
    // It would be tried again every second for ever.
    LOG(WARNING) << "a damaged table file: no more compactions until the next start";
    RETURN_IF_ERROR(FromRocksDb(db->SetOptions({{"disable_auto_compactions", "true"}}),
                                "end metadata compactions"));
  }
  const rocksdb::Status written = db->Write(options, batch);
  if (!written.ok()) return NoteFailure(FromRocksDb(written, "write metadata"), false);
  if (sync == Sync::kNo) return Status();
  // Not WriteOptions::sync: while that waits for the disk, no other write begins.
  const rocksdb::Status synced = db->SyncWAL();
  if (!synced.ok()) return NoteFailure(FromRocksDb(synced, "sync metadata"), true);
  return Status();
}

}  // namespace cachecore
