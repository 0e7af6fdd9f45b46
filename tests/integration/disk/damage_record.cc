// damage_record DB_DIRECTORY OBJECT_NUMBER TEXT: puts TEXT where the record of an object was.
// damage_record DB_DIRECTORY newer: makes the database one of the next schema version.
//
// Model    the database is opened as the daemon opens it.  RocksDB's own ldb does not know how
// presence
//          records merge, and would damage more than it was asked to.
// See      docs/format.md.

#include <rocksdb/write_batch.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "cachecore/store/metadata_schema.h"
#include "cachecore/store/rocksdb_database.h"

int main(int argc, char** argv) {
  const bool newer = argc == 3 && std::string_view(argv[2]) == "newer";
  if (argc != 4 && !newer) {
    fprintf(stderr, "usage: damage_record DB_DIRECTORY OBJECT_NUMBER TEXT | DB_DIRECTORY newer\n");
    return 2;
  }
  const auto database = cachecore::RocksDbDatabase::Open(argv[1]);
  if (!database.ok()) {
    fprintf(stderr, "%s\n", database.status().message().c_str());
    return 1;
  }
  namespace schema = cachecore::schema;
  const cachecore::ObjectNumber number{strtoull(argv[2], nullptr, 10)};
  const std::string key = newer ? schema::VersionKey() : schema::ObjectKey(number);
  const std::string value = newer ? schema::EncodeVersion(schema::kVersion + 1) : argv[3];
  rocksdb::WriteBatch batch;
  const bool taken = batch.Put(key, value).ok();
  const cachecore::Status written = (*database)->Write(&batch, cachecore::Sync::kYes);
  if (!taken || !written.ok()) {
    fprintf(stderr, "%s\n", written.message().c_str());
    return 1;
  }
  return 0;
}
