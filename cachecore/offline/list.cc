#include "cachecore/offline/list.h"

#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string_view>
#include <utility>

#include "cachecore/policy/choices.h"
#include "cachecore/store/data_store.h"
#include "cachecore/store/metadata_schema.h"
#include "cachecore/store/rocksdb_database.h"
#include "cachecore/store/rocksdb_metadata_store.h"

namespace cachecore {
namespace {

struct Known {
  ObjectNumber volume;
  ListedObject listed;
  PresenceMap presence;
};
using Objects = std::map<uint64_t, Known>;

Status ReadObjects(const RocksDbDatabase& db, Objects* objects) {
  return db.Scan({schema::kObject}, [&](std::string_view key, std::string_view value) {
    const Result<ObjectRecord> record = schema::DecodeObject(key, value);
    if (!record.ok()) return true;
    Known known{record->volume, {}, PresenceMap(record->size_bytes)};
    known.listed.cookie = record->cookie;
    known.listed.size_bytes = record->size_bytes;
    objects->emplace(record->number.value, std::move(known));
    return true;
  });
}

Status ReadPresence(const RocksDbDatabase& db, const std::string& prefix, Objects* objects) {
  return db.Scan(prefix, [&](std::string_view key, std::string_view value) {
    const Result<schema::PresenceKeyParts> parts = schema::ParsePresenceKey(key);
    if (!parts.ok()) return true;
    const auto object = objects->find(parts->object.value);
    if (object == objects->end()) return true;
    object->second.presence.MergeLeaf(parts->leaf, value)
        .IgnoreError("a damaged leaf is absent; holdfast verify names it");
    return true;
  });
}

Status ReadUses(const RocksDbDatabase& db, Objects* objects) {
  return db.Scan({schema::kUse}, [&](std::string_view key, std::string_view value) {
    const Result<UseRecord> use = schema::DecodeUse(key, value);
    const auto object = use.ok() ? objects->find(use->object.value) : objects->end();
    if (object == objects->end()) return true;
    const uint64_t latest = *std::max_element(use->seconds.begin(), use->seconds.end());
    object->second.listed.used = std::max(object->second.listed.used, latest);
    return true;
  });
}

Status ReadVolumes(const RocksDbDatabase& db, Objects* objects) {
  std::map<uint64_t, std::string> keys;
  RETURN_IF_ERROR(db.Scan({schema::kVolume}, [&](std::string_view key, std::string_view value) {
    const Result<VolumeRecord> volume = schema::DecodeVolume(key, value);
    if (volume.ok()) keys[volume->number.value] = volume->key;
    return true;
  }));
  for (auto& [number, known] : *objects) known.listed.volume = keys[known.volume.value];
  return Status();
}

void ReadDataFile(const std::string& cache_dir, ObjectNumber number, ListedObject* listed) {
  struct stat info;
  const std::string path = DataStore::PathIn(cache_dir + "/data", number);
  if (lstat(path.c_str(), &info) != 0) return;
  listed->allocated_bytes = static_cast<uint64_t>(info.st_blocks) * 512;
  if (listed->used == 0) {
    listed->used = static_cast<uint64_t>(std::max(info.st_atim.tv_sec, info.st_mtim.tv_sec));
  }
}

}  // namespace

Result<std::vector<ListedObject>> ListCache(const std::string& cache_dir,
                                            const std::string& boot_id) {
  ASSIGN_OR_RETURN(const std::string boot, schema::ParseBootId(boot_id));
  ASSIGN_OR_RETURN(const std::unique_ptr<RocksDbDatabase> db,
                   RocksDbDatabase::OpenReadOnly(cache_dir + "/db"));
  Objects objects;
  RETURN_IF_ERROR(ReadObjects(*db, &objects));
  RETURN_IF_ERROR(ReadVolumes(*db, &objects));
  RETURN_IF_ERROR(ReadPresence(*db, {schema::kDurablePresence}, &objects));
  RETURN_IF_ERROR(ReadPresence(*db, std::string(1, schema::kBootPresence) + boot, &objects));
  RETURN_IF_ERROR(ReadUses(*db, &objects));
  ASSIGN_OR_RETURN(const std::vector<Choice> choices, LoadRocksDbChoices(*db));
  std::set<std::string> names;
  for (const Choice& choice : choices) names.insert(choice.name);
  std::vector<ListedObject> list;
  for (auto& [number, known] : objects) {
    ListedObject& listed = list.emplace_back(std::move(known.listed));
    listed.present_bytes = known.presence.present_bytes();
    listed.is_pinned = names.contains(PinName(listed.volume, listed.cookie));
    ReadDataFile(cache_dir, ObjectNumber{number}, &listed);
  }
  return list;
}

}  // namespace cachecore
