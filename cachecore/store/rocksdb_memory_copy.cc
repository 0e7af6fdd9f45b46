#include "cachecore/store/rocksdb_memory_copy.h"

#include <fcntl.h>
#include <rocksdb/env.h>
#include <rocksdb/write_batch.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "cachecore/base/unique_fd.h"

namespace cachecore {
namespace {

constexpr char kPlace[] = "/copy";          // In an Env of its own.
constexpr uint64_t kMemorySlack = 1 << 20;  // For manifest, log and table that an open begins.
constexpr size_t kBatchBytes = 1 << 20;     // Of a copy.

Result<std::shared_ptr<rocksdb::DB>> MakeEmpty(const std::shared_ptr<RocksDbSignals>& signals) {
  const std::shared_ptr<rocksdb::Env> memory(rocksdb::NewMemEnv(rocksdb::Env::Default()));
  rocksdb::Options options = MakeRocksDbOptions(signals);
  options.env = memory.get();
  options.create_if_missing = true;
  RETURN_IF_ERROR(FromRocksDb(memory->CreateDir(kPlace), "copy metadata to memory"));
  rocksdb::DB* db = nullptr;
  RETURN_IF_ERROR(FromRocksDb(rocksdb::DB::Open(options, kPlace, &db), "copy metadata to memory"));
  // The Env goes after the database, with its last user.
  return std::shared_ptr<rocksdb::DB>(db, [memory](rocksdb::DB* held) { delete held; });
}

}  // namespace

Result<std::shared_ptr<rocksdb::DB>> CopyRocksDbToMemory(
    const std::string& directory, const std::shared_ptr<RocksDbSignals>& signals) {
  rocksdb::DB* opened = nullptr;
  RETURN_IF_ERROR(
      FromRocksDb(rocksdb::DB::OpenForReadOnly(MakeRocksDbOptions(signals), directory, &opened),
                  "read metadata in " + directory));
  const std::unique_ptr<rocksdb::DB> source(opened);
  ASSIGN_OR_RETURN(std::shared_ptr<rocksdb::DB> copy, MakeEmpty(signals));
  rocksdb::WriteOptions unlogged;
  unlogged.disableWAL = true;
  rocksdb::WriteBatch batch;
  const std::unique_ptr<rocksdb::Iterator> it(source->NewIterator({}));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    batch.Put(it->key(), it->value());
    if (batch.GetDataSize() < kBatchBytes) continue;
    RETURN_IF_ERROR(FromRocksDb(copy->Write(unlogged, &batch), "copy metadata to memory"));
    batch.Clear();
  }
  RETURN_IF_ERROR(FromRocksDb(it->status(), "read metadata in " + directory));
  RETURN_IF_ERROR(FromRocksDb(copy->Write(unlogged, &batch), "copy metadata to memory"));
  return copy;
}

Status WriteBackRocksDb(rocksdb::DB* copy, rocksdb::DB* disk) {
  const std::unique_ptr<rocksdb::Iterator> wanted(copy->NewIterator({}));
  const std::unique_ptr<rocksdb::Iterator> found(disk->NewIterator({}));
  rocksdb::WriteBatch batch;
  wanted->SeekToFirst();
  found->SeekToFirst();
  while (wanted->Valid() || found->Valid()) {
    int order = wanted->Valid() ? -1 : 1;
    if (wanted->Valid() && found->Valid()) order = wanted->key().compare(found->key());
    if (order > 0) batch.Delete(found->key());
    if (order < 0 || (order == 0 && wanted->value() != found->value())) {
      batch.Put(wanted->key(), wanted->value());
    }
    if (order <= 0) wanted->Next();
    if (order >= 0) found->Next();
  }
  RETURN_IF_ERROR(FromRocksDb(wanted->status(), "read the metadata kept in memory"));
  RETURN_IF_ERROR(FromRocksDb(found->status(), "read metadata"));
  rocksdb::WriteOptions options;
  options.sync = true;
  return FromRocksDb(disk->Write(options, &batch), "write the metadata kept in memory");
}

Status CheckRoomForRocksDb(const std::string& directory) {
  uint64_t needed = kMemorySlack;  // And what is in the logs, which an open makes a table of.
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    if (entry.path().extension() == ".log") needed += entry.file_size(error);
  }
  // Without a name: nothing is left of it, whatever happens.
  const UniqueFd probe(open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!probe.valid()) {
    if (errno == EOPNOTSUPP || errno == EISDIR) return Status();  // The open itself will fail.
    return Status::FromErrno(errno, "make a file in " + directory);
  }
  if (fallocate(probe.get(), 0, 0, static_cast<off_t>(needed)) != 0 && errno != EOPNOTSUPP) {
    return Status::FromErrno(errno, "take room in " + directory);
  }
  return Status();
}

}  // namespace cachecore
