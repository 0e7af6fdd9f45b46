// MendRecords: makes the records of a repaired database fit each other again; and quarantine.
//
// Model    a repair keeps what it can read, so records of different ages stand side by side: some
//          are gone, some that had been erased are back, a counter may be an old one.  Afterwards
//          every volume and object has both its records, nothing belongs to what is not there, and
//          no counter gives a number that any record has.
// Errors   EBADMSG is none: what cannot be read is passed over.  Others as RocksDbDatabase's.
// Cost     two passes over all records, and in memory two strings an object.
// Crash    one synced batch: all or nothing; but the database is not taken for damaged again, so
//          one that dies before it relies on HasLostAPart.
// See      docs/format.md "Damage".

#ifndef CACHECORE_STORE_ROCKSDB_MEND_H_
#define CACHECORE_STORE_ROCKSDB_MEND_H_

#include <rocksdb/write_batch.h>

#include <string>
#include <string_view>

#include "cachecore/base/status.h"
#include "cachecore/store/rocksdb_database.h"
#include "cachecore/values/ids.h"

namespace cachecore {

// Whether records are missing from the middle of the history.  The log loses its end only; but a
// manifest that lost its end loses tables in between, and no record shows that.  It shows at the
// youngest records: they belong to something that is not there, or their number was never handed
// out and would be again.  A few look-ups.
bool HasLostAPart(const RocksDbDatabase& db);

Status MendRecords(RocksDbDatabase* db);

// Into `batch`: puts a damaged record of the object under a quarantine key.
void KeepDamaged(ObjectNumber object, std::string_view key, std::string_view value,
                 rocksdb::WriteBatch* batch);
// The same with what is left of one record, if it can still be read.
void KeepIfReadable(const RocksDbDatabase& db, ObjectNumber object, const std::string& key,
                    rocksdb::WriteBatch* batch);
// The same with the leaves of presence that do not decode; the whole ones are of no use once their
// object is gone.
void KeepDamagedLeaves(const RocksDbDatabase& db, ObjectNumber object, const std::string& prefix,
                       rocksdb::WriteBatch* batch);

}  // namespace cachecore

#endif  // CACHECORE_STORE_ROCKSDB_MEND_H_
