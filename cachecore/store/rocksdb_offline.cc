// What is read of a database that may be opened read-only; see rocksdb_metadata_store.h.

#include <glog/logging.h>

#include <cerrno>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>

#include "cachecore/store/metadata_schema.h"
#include "cachecore/store/rocksdb_database.h"
#include "cachecore/store/rocksdb_metadata_store.h"

namespace cachecore {

Result<uint32_t> CheckRocksDbSchema(const std::string& directory) {
  ASSIGN_OR_RETURN(const std::unique_ptr<RocksDbDatabase> db,
                   RocksDbDatabase::OpenReadOnly(directory));
  ASSIGN_OR_RETURN(const std::optional<std::string> value, db->Get(schema::VersionKey()));
  if (!value) return schema::kVersion;  // It has none yet, and gets this program's.
  const Result<uint32_t> version = schema::DecodeVersion(*value);
  if (!version.ok()) return schema::kVersion;  // A damaged record is repaired at the start.
  RETURN_IF_ERROR(schema::CheckVersion(directory, *version));
  return *version;
}

Result<std::vector<Choice>> LoadRocksDbChoices(const RocksDbDatabase& db) {
  std::vector<Choice> choices;
  RETURN_IF_ERROR(db.Scan({schema::kChoice}, [&](std::string_view key, std::string_view value) {
    const Result<Choice> choice = schema::DecodeChoice(key, value);
    LOG_IF(WARNING, !choice.ok()) << schema::Quoted(key) << ": " << choice.status().message();
    choices.push_back(choice.ok() ? *choice : Choice{std::string(key.substr(1)), ""});
    return true;
  }));
  return choices;
}

Status DumpRocksDbMetadata(const std::string& directory, std::ostream& out) {
  ASSIGN_OR_RETURN(const std::unique_ptr<RocksDbDatabase> db,
                   RocksDbDatabase::OpenReadOnly(directory));
  RETURN_IF_ERROR(db->Scan("", [&](std::string_view key, std::string_view value) {
    out << schema::Describe(key, value) << '\n';
    return out.good();
  }));
  if (!out.good()) return Status(EIO, "write the dump");
  return Status();
}

}  // namespace cachecore
