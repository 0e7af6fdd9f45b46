#include "cachecore/store/rocksdb_mend.h"

#include <glog/logging.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "cachecore/store/metadata_schema.h"
#include "cachecore/values/presence_leaf.h"

namespace cachecore {
namespace {

// Past what was handed out and is recorded nowhere any more.
constexpr uint64_t kSkip = uint64_t{1} << 24;

class Mender {
 public:
  explicit Mender(RocksDbDatabase* db) : db_(db) {}

  Status Run();

 private:
  using Name = std::pair<uint64_t, std::string>;  // Volume, cookie.
  using Look = std::function<void(std::string_view key, std::string_view value)>;

  Status ScanKind(char kind, const Look& look) const;
  Status ReadVolumes();
  Status ReadObjects();
  Status DropStrays();
  Status RaiseCounters();
  void SeeNumber(uint64_t number) { Raise(Counter::kObjectNumber, number); }
  void Raise(Counter counter, uint64_t number) {
    uint64_t& seen = seen_[static_cast<size_t>(counter)];
    seen = std::max(seen, number);
  }
  void Drop(std::string_view key) {
    batch_.Delete(rocksdb::Slice(key.data(), key.size()));
    ++dropped_;
  }

  RocksDbDatabase* const db_;
  rocksdb::WriteBatch batch_;
  std::map<uint64_t, std::string> volumes_;
  std::map<Name, uint64_t> numbers_;  // By name, the object that has it.
  std::map<uint64_t, Name> objects_;
  std::array<uint64_t, 4> seen_{};  // By Counter: the highest number of any record.
  uint64_t dropped_ = 0;
};

Status Mender::ScanKind(char kind, const Look& look) const {
  const Status scanned =
      db_->Scan(std::string(1, kind), [&](std::string_view key, std::string_view value) {
        look(key, value);
        return true;
      });
  if (!scanned.ok() && scanned.error() != EBADMSG) return scanned;
  return Status();
}

// Each of a volume's two records has all that is known of it.
Status Mender::ReadVolumes() {
  RETURN_IF_ERROR(ScanKind(schema::kVolume, [this](std::string_view key, std::string_view value) {
    SeeNumber(schema::NumberOf(key));
    const Result<VolumeRecord> volume = schema::DecodeVolume(key, value);
    if (volume.ok()) volumes_[volume->number.value] = volume->key;
  }));
  RETURN_IF_ERROR(
      ScanKind(schema::kVolumeIndex, [this](std::string_view key, std::string_view value) {
        const Result<VolumeRecord> index = schema::DecodeVolumeIndex(key, value);
        if (!index.ok()) return;
        SeeNumber(index->number.value);
        const auto [it, fresh] = volumes_.try_emplace(index->number.value, index->key);
        if (fresh) batch_.Put(schema::VolumeKey(index->number), schema::EncodeVolume(*index));
        if (it->second != index->key) Drop(key);
      }));
  for (const auto& [number, key] : volumes_) {
    const VolumeRecord volume{{number}, key};
    batch_.Put(schema::VolumeIndexKey(key), schema::EncodeVolumeIndex(volume));
  }
  return Status();
}

// Of several objects of one name the youngest has it: the others had been replaced.
Status Mender::ReadObjects() {
  RETURN_IF_ERROR(ScanKind(schema::kObject, [this](std::string_view key, std::string_view value) {
    SeeNumber(schema::NumberOf(key));
    const Result<ObjectRecord> object = schema::DecodeObject(key, value);
    if (!object.ok()) return;  // Its object is quarantined when it is met.
    const Name name{object->volume.value, object->cookie};
    if (!volumes_.contains(name.first)) {
      Drop(key);
      return;
    }
    if (const auto older = numbers_.find(name); older != numbers_.end()) {
      Drop(schema::ObjectKey({older->second}));
      objects_.erase(older->second);
    }
    numbers_[name] = object->number.value;
    objects_[object->number.value] = name;
  }));
  RETURN_IF_ERROR(
      ScanKind(schema::kObjectIndex, [this](std::string_view key, std::string_view value) {
        const Result<ObjectRecord> index = schema::DecodeObjectIndex(key, value);
        if (!index.ok()) return;
        SeeNumber(index->number.value);
        if (!numbers_.contains({index->volume.value, index->cookie})) Drop(key);
      }));
  for (const auto& [name, number] : numbers_) {
    ObjectRecord object;
    object.number = {number};
    object.volume = {name.first};
    object.cookie = name.second;
    batch_.Put(schema::ObjectIndexKey(object.volume, object.cookie),
               schema::EncodeObjectIndex(object));
  }
  return Status();
}

// Presence, uses and requests of objects that are not there.
Status Mender::DropStrays() {
  for (const char kind : {schema::kBootPresence, schema::kDurablePresence}) {
    RETURN_IF_ERROR(ScanKind(kind, [this](std::string_view key, std::string_view) {
      const Result<schema::PresenceKeyParts> parts = schema::ParsePresenceKey(key);
      if (parts.ok()) SeeNumber(parts->object.value);
      if (!parts.ok() || !objects_.contains(parts->object.value)) Drop(key);
    }));
  }
  RETURN_IF_ERROR(ScanKind(schema::kUse, [this](std::string_view key, std::string_view value) {
    const Result<UseRecord> use = schema::DecodeUse(key, value);
    if (use.ok()) SeeNumber(use->object.value);
    if (!use.ok() || !objects_.contains(use->object.value)) Drop(key);
  }));
  return ScanKind(schema::kJournal, [this](std::string_view key, std::string_view value) {
    const Result<JournalRecord> request = schema::DecodeJournal(key, value);
    if (!request.ok()) return;
    SeeNumber(request->object.value);
    Raise(Counter::kMsgId, request->msg_id.value);
    Raise(Counter::kGeneration, request->generation.value);
    if (!objects_.contains(request->object.value)) Drop(key);
  });
}

Status Mender::RaiseCounters() {
  for (size_t i = 0; i < seen_.size(); ++i) {
    const auto counter = static_cast<Counter>(i);
    const Result<std::optional<std::string>> value = db_->Get(schema::CounterKey(counter));
    if (value.ok() && value->has_value()) {
      const Result<uint64_t> next = schema::DecodeCounter(counter, **value);
      if (next.ok()) Raise(counter, *next);
    } else if (!value.ok() && value.status().error() != EBADMSG) {
      return value.status();
    }
    batch_.Put(schema::CounterKey(counter), schema::EncodeCounter(counter, seen_[i] + kSkip));
  }
  return Status();
}

Status Mender::Run() {
  RETURN_IF_ERROR(ReadVolumes());
  RETURN_IF_ERROR(ReadObjects());
  RETURN_IF_ERROR(DropStrays());
  RETURN_IF_ERROR(RaiseCounters());
  RETURN_IF_ERROR(db_->Write(&batch_, Sync::kYes));
  LOG(WARNING) << "metadata mended: " << volumes_.size() << " volumes and " << objects_.size()
               << " objects kept, " << dropped_ << " records that belonged to nothing dropped";
  return Status();
}

std::optional<std::string> LastKeyOf(const RocksDbDatabase& db, char kind) {
  return db.LastKey(std::string(1, kind));
}

}  // namespace

bool HasLostAPart(const RocksDbDatabase& db) {
  const auto missing = [&db](const std::string& key) {
    const Result<std::optional<std::string>> value = db.Get(key);
    return value.ok() && !value->has_value();
  };
  uint64_t used = 0;
  if (const auto last = LastKeyOf(db, schema::kVolume)) used = schema::NumberOf(*last);
  if (const auto last = LastKeyOf(db, schema::kObject)) {
    used = std::max(used, schema::NumberOf(*last));
    const Result<std::optional<std::string>> value = db.Get(*last);
    if (value.ok() && value->has_value()) {
      const Result<ObjectRecord> object = schema::DecodeObject(*last, **value);
      if (object.ok() && missing(schema::VolumeKey(object->volume))) return true;
    }
  }
  if (const auto last = LastKeyOf(db, schema::kDurablePresence)) {
    const Result<schema::PresenceKeyParts> presence = schema::ParsePresenceKey(*last);
    if (presence.ok() && missing(schema::ObjectKey(presence->object))) return true;
  }
  const std::string key = schema::CounterKey(Counter::kObjectNumber);
  const Result<std::optional<std::string>> value = db.Get(key);
  if (!value.ok() || !value->has_value()) return value.ok() && used > 0;
  const Result<uint64_t> next = schema::DecodeCounter(Counter::kObjectNumber, **value);
  return next.ok() && *next <= used;  // Reserve repairs a damaged one.
}

Status MendRecords(RocksDbDatabase* db) { return Mender(db).Run(); }

void KeepDamaged(ObjectNumber object, std::string_view key, std::string_view value,
                 rocksdb::WriteBatch* batch) {
  batch->Put(schema::QuarantineKey(object, key), rocksdb::Slice(value.data(), value.size()));
  batch->Delete(rocksdb::Slice(key.data(), key.size()));
}

void KeepIfReadable(const RocksDbDatabase& db, ObjectNumber object, const std::string& key,
                    rocksdb::WriteBatch* batch) {
  const Result<std::optional<std::string>> value = db.Get(key);
  if (!value.ok()) batch->Delete(key);
  if (value.ok() && value->has_value()) KeepDamaged(object, key, **value, batch);
}

void KeepDamagedLeaves(const RocksDbDatabase& db, ObjectNumber object, const std::string& prefix,
                       rocksdb::WriteBatch* batch) {
  const Status scanned = db.Scan(prefix, [&](std::string_view key, std::string_view value) {
    PresenceLeaf leaf;
    uint32_t added;
    if (!leaf.Merge(value, &added).ok()) KeepDamaged(object, key, value, batch);
    return true;
  });
  if (!scanned.ok()) LOG(WARNING) << scanned.message() << "; its damaged bytes are not kept";
}

}  // namespace cachecore
