// A copy of a database in memory, for a disk that can be read and not written to.
//
// Errors   FromRocksDb's.  A source that cannot be read to its end gives no copy: records that were
//          left out would be erased when the copy is written back.
// Cost     memory: all records.  Two passes over all records to write it back.
// Crash    the copy is lost.  WriteBack is one synced batch: all or nothing.

#ifndef CACHECORE_STORE_ROCKSDB_MEMORY_COPY_H_
#define CACHECORE_STORE_ROCKSDB_MEMORY_COPY_H_

#include <rocksdb/db.h>

#include <memory>
#include <string>

#include "cachecore/base/status.h"
#include "cachecore/store/rocksdb_options.h"

namespace cachecore {

// Reads the database in `directory`, its log included; writes nothing there.
Result<std::shared_ptr<rocksdb::DB>> CopyRocksDbToMemory(
    const std::string& directory, const std::shared_ptr<RocksDbSignals>& signals);

// Makes `disk` hold the records of `copy` and no others.
Status WriteBackRocksDb(rocksdb::DB* copy, rocksdb::DB* disk);

// Whether the file system of `directory` has room for what RocksDB writes when it opens it.
Status CheckRoomForRocksDb(const std::string& directory);

}  // namespace cachecore

#endif  // CACHECORE_STORE_ROCKSDB_MEMORY_COPY_H_
