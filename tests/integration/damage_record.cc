// damage_record DB_DIRECTORY OBJECT_NUMBER TEXT: puts TEXT where the record of an object was.
//
// Model    the database is opened as the daemon opens it.  RocksDB's own ldb does not know how
// presence
//          records merge, and would damage more than it was asked to.
// See      docs/format.md.

#include <rocksdb/write_batch.h>

#include <cstdio>
#include <cstdlib>

#include "cachecore/metadata_schema.h"
#include "cachecore/rocksdb_database.h"

int main(int argc, char** argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: damage_record DB_DIRECTORY OBJECT_NUMBER TEXT\n");
    return 2;
  }
  const auto database = cachecore::RocksDbDatabase::Open(argv[1]);
  if (!database.ok()) {
    fprintf(stderr, "%s\n", database.status().message().c_str());
    return 1;
  }
  const cachecore::ObjectNumber number{strtoull(argv[2], nullptr, 10)};
  rocksdb::WriteBatch batch;
  const bool taken = batch.Put(cachecore::schema::ObjectKey(number), argv[3]).ok();
  const cachecore::Status written = (*database)->Write(&batch, cachecore::Sync::kYes);
  if (!taken || !written.ok()) {
    fprintf(stderr, "%s\n", written.message().c_str());
    return 1;
  }
  return 0;
}
