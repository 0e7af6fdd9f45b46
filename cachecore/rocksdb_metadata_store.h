// RocksDbMetadataStore: MetadataStore in one RocksDB database; the only file pair that includes rocksdb/.
//
// Model    one column family; keys and values are metadata_schema.h's.  Presence is written as merge
//          operands, so a fill is one small write whatever the object's size.
// Errors   Open: EBUSY (another process has it open), EPROTO (written by a newer schema), else what
//          the disk said; each message names the directory and what to do.
// Threads  thread-safe.
// Cost     tuned small: one 4 MiB memtable, 4 MiB block cache.
// Crash    see MetadataStore.

#ifndef CACHECORE_ROCKSDB_METADATA_STORE_H_
#define CACHECORE_ROCKSDB_METADATA_STORE_H_

#include <memory>
#include <ostream>
#include <string>

#include "cachecore/metadata_store.h"

namespace cachecore {

// `boot_id` names the running kernel instance (/proc/sys/kernel/random/boot_id).
Result<std::unique_ptr<MetadataStore>> OpenRocksDbMetadataStore(const std::string& directory,
                                                                const std::string& boot_id);

// The machine's boot id.
Result<std::string> ReadBootId();

// Prints every record of a database, opened read-only, one a line, in a stable order.
Status DumpRocksDbMetadata(const std::string& directory, std::ostream& out);

}  // namespace cachecore

#endif  // CACHECORE_ROCKSDB_METADATA_STORE_H_
