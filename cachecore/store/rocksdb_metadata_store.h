// RocksDbMetadataStore: MetadataStore in one RocksDB database.
//
// Model    one column family; keys and values are metadata_schema.h's.  Presence is written as
//          merge operands, so a fill is one small write whatever the object's size.
// Errors   Open: EBUSY (another process has it open), EPROTO (written by a newer schema), EINVAL
//          (no boot id), else the error of the disk; each message names the directory and what to
//          do.  Later: see rocksdb_database.h.
// Threads  thread-safe.
// Crash    see MetadataStore and rocksdb_database.h.
// See      docs/format.md.

#ifndef CACHECORE_STORE_ROCKSDB_METADATA_STORE_H_
#define CACHECORE_STORE_ROCKSDB_METADATA_STORE_H_

#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "cachecore/store/metadata_store.h"

namespace cachecore {

// Makes `directory` (mode 0700) if need be.  `boot_id` names the running kernel instance, as in
// /proc/sys/kernel/random/boot_id.
Result<std::unique_ptr<MetadataStore>> OpenRocksDbMetadataStore(const std::string& directory,
                                                                const std::string& boot_id);

// The schema version of a database that this program could open.  EPROTO when a newer one has
// written it.  Opened read-only: works beside a running daemon.
Result<uint32_t> CheckRocksDbSchema(const std::string& directory);

class RocksDbDatabase;
// See MetadataStore::LoadChoices.
Result<std::vector<Choice>> LoadRocksDbChoices(const RocksDbDatabase& db);

// Takes every step of an open and a first commit on a scratch database in memory, so that those of
// the real one find their code loaded.
void WarmUpRocksDb();

// Prints every record of a database, opened read-only, one a line, in a stable order.  Works beside
// a running daemon.  An object's attr is printed: it holds validators, never secrets.
Status DumpRocksDbMetadata(const std::string& directory, std::ostream& out);

}  // namespace cachecore

#endif  // CACHECORE_STORE_ROCKSDB_METADATA_STORE_H_
