#include "cachecore/store/rocksdb_metadata_store.h"

#include <glog/logging.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <string_view>
#include <utility>

#include "cachecore/base/fault_point.h"
#include "cachecore/base/mutex.h"
#include "cachecore/store/metadata_schema.h"
#include "cachecore/store/rocksdb_counters.h"
#include "cachecore/store/rocksdb_database.h"
#include "cachecore/store/rocksdb_mend.h"
#include "cachecore/store/store_fault_points.h"

namespace cachecore {
namespace {

std::string KindPrefix(char kind) { return std::string(1, kind); }

class Store : public MetadataStore {
 public:
  Store(std::unique_ptr<RocksDbDatabase> db, std::string boot_id)
      : boot_id_(std::move(boot_id)), db_(std::move(db)), counters_(db_.get()) {}

  // The part of opening that writes: the schema's version, and the end of other boots' presence.
  Status PrepareOrFallBack(const std::string& directory);
  Status Prepare(const std::string& directory);

  Result<uint64_t> Reserve(Counter counter, uint64_t count) override {
    return counters_.Reserve(counter, count);
  }
  Status Commit(const MetadataBatch& batch, Sync sync) override;
  Result<std::optional<VolumeRecord>> FindVolume(const std::string& key) override;
  Result<std::optional<VolumeRecord>> LoadVolume(ObjectNumber number) override;
  Result<std::optional<ObjectNumber>> FindObject(ObjectNumber volume,
                                                 const std::string& cookie) override;
  Result<std::optional<ObjectRecord>> LoadObject(ObjectNumber number) override;
  Result<PresenceMap> LoadPresence(ObjectNumber object, uint64_t size_bytes) override;
  Result<PresenceMap> LoadDurablePresence(ObjectNumber object, uint64_t size_bytes) override;
  std::vector<UseRecord> LoadUses(ObjectNumber object) override;
  Result<std::vector<ObjectNumber>> FindUndurable() override;
  Result<std::vector<Choice>> LoadChoices() override { return LoadRocksDbChoices(*db_); }
  Result<std::vector<JournalRecord>> LoadJournal() override;
  Status ScanVolumes(const std::function<bool(const VolumeRecord&)>& visit) override;
  Status ScanObjects(ObjectNumber volume,
                     const std::function<bool(const ObjectRecord&)>& visit) override;
  Status QuarantineObject(ObjectNumber number, ObjectNumber volume, const std::string& cookie,
                          const std::function<Status(ObjectNumber)>& remove_data) override;
  Status Heal() override { return db_->Heal(); }

 private:
  Status MergeLeaves(const std::string& prefix, ObjectNumber object, PresenceMap* map) const;
  // Adds to `batch` the removal of an object's records, except its index record if that already
  // names another object.
  Status EraseObject(const ObjectRecord& object, rocksdb::WriteBatch* batch) const;
  using VolumeDecoder = Result<VolumeRecord> (*)(std::string_view key, std::string_view value);
  Result<std::optional<VolumeRecord>> ReadVolume(
      const std::string& key, VolumeDecoder decode, char other_kind, VolumeDecoder decode_other,
      const std::function<bool(const VolumeRecord&)>& is_wanted);
  void PutVolume(const VolumeRecord& volume, rocksdb::WriteBatch* batch) const;
  void PutPresence(const MetadataBatch::PresenceChange& change, rocksdb::WriteBatch* batch) const;
  Status RemovePresence(const std::vector<MetadataBatch::PresenceChange>& changes,
                        rocksdb::WriteBatch* batch) const;
  Status RemoveFromLeaves(const std::string& prefix, ByteRange range,
                          std::map<std::string, std::string>* leaves) const;
  Status EraseParts(ObjectNumber object, rocksdb::WriteBatch* batch) const;
  void PutUse(const UseRecord& use, rocksdb::WriteBatch* batch);
  void NoteLostUses(const Status& why);

  const std::string boot_id_;  // 16 bytes.
  const std::unique_ptr<RocksDbDatabase> db_;
  RocksDbCounters counters_;
  std::atomic<bool> lost_uses_{false};  // Which has been logged; by whichever thread meets it.
  Mutex object_mu_;                     // Held over an index record's check and its batch.
  std::shared_mutex presence_mu_;       // Held alone to take presence away, shared to add some.
};

Status Store::Prepare(const std::string& directory) {
  rocksdb::WriteBatch batch;
  Result<std::optional<std::string>> value = db_->Get(schema::VersionKey());
  if (!value.ok() && value.status().error() != EBADMSG) return std::move(value).status();
  bool current = false;
  if (value.ok() && value->has_value()) {
    const Result<uint32_t> version = schema::DecodeVersion(**value);
    if (version.ok()) RETURN_IF_ERROR(schema::CheckVersion(directory, *version));
    current = version.ok() && *version == schema::kVersion;
    if (!version.ok()) KeepDamaged({}, schema::VersionKey(), **value, &batch);
  }
  if (db_->repaired() || HasLostAPart(*db_)) RETURN_IF_ERROR(MendRecords(db_.get()));
  if (!current) batch.Put(schema::VersionKey(), schema::EncodeVersion(schema::kVersion));
  // Everything that is of a boot, except of this one.
  const std::string first = {schema::kBootPresence};
  const std::string this_boot = first + boot_id_;
  batch.DeleteRange(first, this_boot);
  batch.DeleteRange(schema::PrefixEnd(this_boot), schema::PrefixEnd(first));
  // Unsynced: what a power cut undoes here, the next start does again.
  return db_->Write(&batch, Sync::kNo);
}

// A disk may have room for an open, and none for the first write.
Status Store::PrepareOrFallBack(const std::string& directory) {
  const Status prepared = Prepare(directory);
  if (prepared.ok() || prepared.error() == EPROTO || db_->in_memory()) return prepared;
  if (!db_->FallBackToMemory(prepared).ok()) return prepared;
  return Prepare(directory);
}

Status Store::Commit(const MetadataBatch& changes, Sync sync) {
  rocksdb::WriteBatch batch;
  std::optional<MutexLock> lock;
  if (!changes.erase_objects.empty() || !changes.put_objects.empty() || !changes.put_uses.empty()) {
    lock.emplace(&object_mu_);
  }
  std::unique_lock alone(presence_mu_, std::defer_lock);
  std::shared_lock shared(presence_mu_, std::defer_lock);
  if (!changes.remove_presence.empty() || !changes.erase_objects.empty()) alone.lock();
  if (!alone.owns_lock() && !changes.add_presence.empty()) shared.lock();
  for (const ObjectRecord& object : changes.erase_objects) {
    RETURN_IF_ERROR(EraseObject(object, &batch));
  }
  for (const VolumeRecord& volume : changes.put_volumes) PutVolume(volume, &batch);
  for (const ObjectRecord& object : changes.put_objects) {
    batch.Put(schema::ObjectKey(object.number), schema::EncodeObject(object));
    batch.Put(schema::ObjectIndexKey(object.volume, object.cookie),
              schema::EncodeObjectIndex(object));
  }
  RETURN_IF_ERROR(RemovePresence(changes.remove_presence, &batch));
  for (const MetadataBatch::PresenceChange& change : changes.add_presence) {
    PutPresence(change, &batch);
  }
  for (const UseRecord& use : changes.put_uses) PutUse(use, &batch);
  for (const JournalRecord& request : changes.put_journal) {
    batch.Put(schema::JournalKey(request.msg_id), schema::EncodeJournal(request));
  }
  for (const MsgId msg_id : changes.erase_journal) batch.Delete(schema::JournalKey(msg_id));
  for (const Choice& choice : changes.put_choices) {
    batch.Put(schema::ChoiceKey(choice.name), schema::EncodeChoice(choice));
  }
  for (const std::string& name : changes.erase_choices) batch.Delete(schema::ChoiceKey(name));
  // The memory goes with the process, and what the disk says would come back.
  if (sync == Sync::kYes && db_->in_memory() &&
      (!changes.remove_presence.empty() || changes.HasChoices())) {
    return Status(EROFS, "metadata cannot be changed for good: its disk takes no writes");
  }
  const auto points = FaultPointsOf(changes);
  for (const auto& [before, after] : points) RETURN_IF_ERROR(PassFaultPoint(before));
  if (batch.Count() > 0) RETURN_IF_ERROR(db_->Write(&batch, sync));
  for (const auto& [before, after] : points) FaultPoint(after);
  return Status();
}

Status Store::EraseObject(const ObjectRecord& object, rocksdb::WriteBatch* batch) const {
  const std::string index_key = schema::ObjectIndexKey(object.volume, object.cookie);
  const Result<std::optional<std::string>> index = db_->Get(index_key);
  if (!index.ok() && index.status().error() != EBADMSG) return index.status();
  bool is_absent_or_anothers = index.ok() && !index->has_value();
  if (index.ok() && index->has_value()) {
    const Result<ObjectRecord> named = schema::DecodeObjectIndex(index_key, **index);
    is_absent_or_anothers = named.ok() && named->number != object.number;
  }
  if (!is_absent_or_anothers) batch->Delete(index_key);
  // A refused OPEN was never recorded, and needs no write.
  const Result<std::optional<std::string>> record = db_->Get(schema::ObjectKey(object.number));
  if (!record.ok() || record->has_value()) batch->Delete(schema::ObjectKey(object.number));
  return EraseParts(object.number, batch);
}

// A range tombstone for what was never there would stay, and slow down every look past it.
Status Store::EraseParts(ObjectNumber object, rocksdb::WriteBatch* batch) const {
  for (const std::string& prefix :
       {schema::DurablePresencePrefix(object), schema::BootPresencePrefix(boot_id_, object),
        schema::UsePrefix(object)}) {
    bool any = false;
    const Status scanned =
        db_->Scan(prefix, [&any](std::string_view, std::string_view) { return !(any = true); });
    if (!scanned.ok() && scanned.error() != EBADMSG) return scanned;
    if (any || !scanned.ok()) batch->DeleteRange(prefix, schema::PrefixEnd(prefix));
  }
  return Status();
}

void Store::PutVolume(const VolumeRecord& volume, rocksdb::WriteBatch* batch) const {
  batch->Put(schema::VolumeKey(volume.number), schema::EncodeVolume(volume));
  batch->Put(schema::VolumeIndexKey(volume.key), schema::EncodeVolumeIndex(volume));
}

void Store::PutPresence(const MetadataBatch::PresenceChange& change,
                        rocksdb::WriteBatch* batch) const {
  CHECK_EQ(change.range.begin % kBlockSize, 0u) << change.range.ToString();
  CHECK_LE(change.range.end, PresenceMap::kMaxObjectSize);
  if (change.range.empty()) return;
  const std::string prefix = change.presence == Presence::kDurable
                                 ? schema::DurablePresencePrefix(change.object)
                                 : schema::BootPresencePrefix(boot_id_, change.object);
  const uint64_t end = (change.range.end + kBlockSize - 1) / kBlockSize;
  for (uint64_t block = change.range.begin / kBlockSize; block < end;) {
    const uint64_t leaf = block / PresenceLeaf::kBlocks;
    const uint64_t first = leaf * PresenceLeaf::kBlocks;
    const uint64_t stop = std::min<uint64_t>(end, first + PresenceLeaf::kBlocks);
    batch->Merge(schema::PresenceKey(prefix, static_cast<uint32_t>(leaf)),
                 PresenceLeaf::EncodeRun(static_cast<uint32_t>(block - first),
                                         static_cast<uint32_t>(stop - first)));
    block = stop;
  }
}

// A merge that comes between the reading and the writing is lost: its bytes are fetched once more.
Status Store::RemovePresence(const std::vector<MetadataBatch::PresenceChange>& changes,
                             rocksdb::WriteBatch* batch) const {
  // As the batch leaves them: several changes may be of one leaf.
  std::map<std::string, std::string> leaves;
  for (const MetadataBatch::PresenceChange& change : changes) {
    for (const std::string& prefix : {schema::DurablePresencePrefix(change.object),
                                      schema::BootPresencePrefix(boot_id_, change.object)}) {
      RETURN_IF_ERROR(RemoveFromLeaves(prefix, change.range, &leaves));
    }
  }
  for (const auto& [key, left] : leaves) {
    left.empty() ? batch->Delete(key) : batch->Put(key, left);
  }
  return Status();
}

Status Store::RemoveFromLeaves(const std::string& prefix, ByteRange range,
                               std::map<std::string, std::string>* leaves) const {
  const uint64_t end = (range.end + kBlockSize - 1) / kBlockSize;
  for (uint64_t block = range.begin / kBlockSize; block < end;) {
    const uint64_t first = block - block % PresenceLeaf::kBlocks;
    const uint64_t stop = std::min<uint64_t>(end, first + PresenceLeaf::kBlocks);
    const std::string key =
        schema::PresenceKey(prefix, static_cast<uint32_t>(first / PresenceLeaf::kBlocks));
    auto leaf = leaves->find(key);
    if (leaf == leaves->end()) {
      ASSIGN_OR_RETURN(const std::optional<std::string> value, db_->Get(key));
      if (value) leaf = leaves->emplace(key, *value).first;
    }
    if (leaf != leaves->end() && !leaf->second.empty()) {
      ASSIGN_OR_RETURN(leaf->second,
                       schema::WithoutBlocks(leaf->second, static_cast<uint32_t>(block - first),
                                             static_cast<uint32_t>(stop - first)));
    }
    block = stop;
  }
  return Status();
}

Result<std::optional<VolumeRecord>> Store::FindVolume(const std::string& key) {
  return ReadVolume(schema::VolumeIndexKey(key), schema::DecodeVolumeIndex, schema::kVolume,
                    schema::DecodeVolume,
                    [&](const VolumeRecord& volume) { return volume.key == key; });
}

Result<std::optional<VolumeRecord>> Store::LoadVolume(ObjectNumber number) {
  return ReadVolume(schema::VolumeKey(number), schema::DecodeVolume, schema::kVolumeIndex,
                    schema::DecodeVolumeIndex,
                    [&](const VolumeRecord& volume) { return volume.number == number; });
}

// Each of a volume's two records is complete, so when one is damaged the other is looked for
// (the only case that scans) and both are written again; without it the volume is gone.
Result<std::optional<VolumeRecord>> Store::ReadVolume(
    const std::string& key, VolumeDecoder decode, char other_kind, VolumeDecoder decode_other,
    const std::function<bool(const VolumeRecord&)>& is_wanted) {
  const Result<std::optional<std::string>> value = db_->Get(key);
  if (value.ok() && !value->has_value()) return std::optional<VolumeRecord>();
  Status damage = value.status();
  if (value.ok()) {
    Result<VolumeRecord> volume = decode(key, **value);
    if (volume.ok()) return std::optional<VolumeRecord>(std::move(volume).value());
    damage = volume.status();
  }
  if (damage.error() != EBADMSG) return damage;
  std::optional<VolumeRecord> found;
  RETURN_IF_ERROR(db_->Scan(
      KindPrefix(other_kind), [&](std::string_view other_key, std::string_view other_value) {
        const Result<VolumeRecord> other = decode_other(other_key, other_value);
        if (other.ok() && is_wanted(*other)) found = *other;
        return !found;
      }));
  LOG(WARNING) << damage.message() << "; " << (found ? "restored volume " : "lost a volume")
               << (found ? std::to_string(found->number.value) : "");
  rocksdb::WriteBatch batch;
  KeepDamaged({}, key, value.ok() ? **value : std::string(), &batch);
  if (found) PutVolume(*found, &batch);
  const Status written = db_->Write(&batch, Sync::kNo);
  LOG_IF(WARNING, !written.ok()) << "that will be done again: " << written.message();
  return found;
}

Result<std::optional<ObjectNumber>> Store::FindObject(ObjectNumber volume,
                                                      const std::string& cookie) {
  const std::string key = schema::ObjectIndexKey(volume, cookie);
  ASSIGN_OR_RETURN(const std::optional<std::string> value, db_->Get(key));
  if (!value) return std::optional<ObjectNumber>();
  ASSIGN_OR_RETURN(const ObjectRecord object, schema::DecodeObjectIndex(key, *value));
  return std::optional<ObjectNumber>(object.number);
}

Result<std::optional<ObjectRecord>> Store::LoadObject(ObjectNumber number) {
  const std::string key = schema::ObjectKey(number);
  ASSIGN_OR_RETURN(const std::optional<std::string> value, db_->Get(key));
  if (!value) return std::optional<ObjectRecord>();
  ASSIGN_OR_RETURN(ObjectRecord object, schema::DecodeObject(key, *value));
  return std::optional<ObjectRecord>(std::move(object));
}

Status Store::MergeLeaves(const std::string& prefix, ObjectNumber object, PresenceMap* map) const {
  Status damage;
  RETURN_IF_ERROR(db_->Scan(prefix, [&](std::string_view key, std::string_view value) {
    damage = map->MergeLeaf(schema::LeafOf(key), value);
    return damage.ok();
  }));
  return std::move(damage).WithContext("presence of object " + std::to_string(object.value));
}

Result<PresenceMap> Store::LoadPresence(ObjectNumber object, uint64_t size_bytes) {
  ASSIGN_OR_RETURN(PresenceMap map, LoadDurablePresence(object, size_bytes));
  RETURN_IF_ERROR(MergeLeaves(schema::BootPresencePrefix(boot_id_, object), object, &map));
  return map;
}

Result<PresenceMap> Store::LoadDurablePresence(ObjectNumber object, uint64_t size_bytes) {
  PresenceMap map(size_bytes);
  RETURN_IF_ERROR(MergeLeaves(schema::DurablePresencePrefix(object), object, &map));
  return map;
}

std::vector<UseRecord> Store::LoadUses(ObjectNumber object) {
  std::vector<UseRecord> uses;
  const Status scanned =
      db_->Scan(schema::UsePrefix(object), [&](std::string_view key, std::string_view value) {
        const Result<UseRecord> use = schema::DecodeUse(key, value);
        if (use.ok()) uses.push_back(*use);
        return true;
      });
  if (!scanned.ok()) NoteLostUses(scanned);
  return uses;
}

// A use is no reason to fail the others of the batch.
void Store::PutUse(const UseRecord& use, rocksdb::WriteBatch* batch) {
  const Result<std::optional<std::string>> object = db_->Get(schema::ObjectKey(use.object));
  if (!object.ok()) NoteLostUses(object.status());
  if (object.ok() && object->has_value()) {
    batch->Put(schema::UseKey(use.object, use.leaf), schema::EncodeUse(use));
  }
}

// Each look for what can be culled meets it again.
void Store::NoteLostUses(const Status& why) {
  if (lost_uses_.exchange(true)) return;
  LOG(WARNING) << "when some objects were last used is lost, which changes the order in which the "
                  "cache is culled and nothing else: "
               << why.message();
}

Result<std::vector<ObjectNumber>> Store::FindUndurable() {
  std::vector<ObjectNumber> found;
  const auto look = [&](std::string_view key, std::string_view value) {
    const Result<schema::PresenceKeyParts> parts = schema::ParsePresenceKey(key);
    if (!parts.ok() || (!found.empty() && found.back() == parts->object)) return true;
    const Result<std::optional<std::string>> durable =
        db_->Get(schema::PresenceKey(schema::DurablePresencePrefix(parts->object), parts->leaf));
    if (!durable.ok()) return true;
    PresenceLeaf leaf;
    uint32_t added = 0;
    if (durable->has_value() && !leaf.Merge(**durable, &added).ok()) return true;
    if (leaf.Merge(value, &added).ok() && added > 0) found.push_back(parts->object);
    return true;
  };
  RETURN_IF_ERROR(db_->Scan(KindPrefix(schema::kBootPresence) + boot_id_, look));
  return found;
}

// A damaged request cannot be matched to anything, and must not hide the others: it is quarantined
// here.  The kernel sends its reads again.
Result<std::vector<JournalRecord>> Store::LoadJournal() {
  std::vector<JournalRecord> journal;
  rocksdb::WriteBatch batch;
  const Status scanned =
      db_->Scan(KindPrefix(schema::kJournal), [&](std::string_view key, std::string_view value) {
        Result<JournalRecord> request = schema::DecodeJournal(key, value);
        if (request.ok()) {
          journal.push_back(std::move(request).value());
        } else {
          LOG(WARNING) << request.status().message() << "; put into quarantine";
          KeepDamaged({}, key, value, &batch);
        }
        return true;
      });
  if (!scanned.ok()) {
    if (scanned.error() != EBADMSG) return scanned;
    // RocksDB cannot read past a bad block: what lies behind it is given up.
    LOG(WARNING) << "journal is cut off after " << journal.size()
                 << " requests: " << scanned.message();
    const std::string begin = journal.empty() ? KindPrefix(schema::kJournal)
                                              : schema::JournalKey(journal.back().msg_id) + '\0';
    batch.DeleteRange(begin, schema::PrefixEnd({schema::kJournal}));
  }
  if (batch.Count() > 0) {
    const Status written = db_->Write(&batch, Sync::kNo);
    LOG_IF(WARNING, !written.ok()) << "that will be done again: " << written.message();
  }
  return journal;
}

Status Store::ScanVolumes(const std::function<bool(const VolumeRecord&)>& visit) {
  return db_->Scan(KindPrefix(schema::kVolume), [&](std::string_view key, std::string_view value) {
    const Result<VolumeRecord> volume = schema::DecodeVolume(key, value);
    return !volume.ok() || visit(*volume);
  });
}

Status Store::ScanObjects(ObjectNumber volume,
                          const std::function<bool(const ObjectRecord&)>& visit) {
  return db_->Scan(KindPrefix(schema::kObject), [&](std::string_view key, std::string_view value) {
    const Result<ObjectRecord> object = schema::DecodeObject(key, value);
    return !object.ok() || object->volume != volume || visit(*object);
  });
}

Status Store::QuarantineObject(ObjectNumber number, ObjectNumber volume, const std::string& cookie,
                               const std::function<Status(ObjectNumber)>& remove_data) {
  MutexLock lock(&object_mu_);
  // The records of the object: (number, key of its index record).  A caller that met a damaged
  // index record does not know the number, one that met a damaged object record may not know the
  // cookie.
  std::vector<ObjectNumber> numbers;
  std::vector<std::string> index_keys;
  if (number.value != 0) {
    numbers.push_back(number);
  } else {
    RETURN_IF_ERROR(ScanObjects(volume, [&](const ObjectRecord& object) {
      if (object.cookie == cookie) numbers.push_back(object.number);
      return true;
    }));
  }
  if (volume.value != 0) {
    index_keys.push_back(schema::ObjectIndexKey(volume, cookie));
  } else {
    RETURN_IF_ERROR(db_->Scan(
        KindPrefix(schema::kObjectIndex), [&](std::string_view key, std::string_view value) {
          const Result<ObjectRecord> object = schema::DecodeObjectIndex(key, value);
          if (object.ok() && object->number == number) index_keys.emplace_back(key);
          return true;
        }));
  }
  rocksdb::WriteBatch batch;
  for (const std::string& key : index_keys) KeepIfReadable(*db_, number, key, &batch);
  for (const ObjectNumber one : numbers) {
    KeepIfReadable(*db_, one, schema::ObjectKey(one), &batch);
    KeepDamagedLeaves(*db_, one, schema::DurablePresencePrefix(one), &batch);
    KeepDamagedLeaves(*db_, one, schema::BootPresencePrefix(boot_id_, one), &batch);
    RETURN_IF_ERROR(EraseParts(one, &batch));
  }
  for (const ObjectNumber one : numbers) RETURN_IF_ERROR(remove_data(one));
  return db_->Write(&batch, Sync::kYes);
}

}  // namespace

Result<std::unique_ptr<MetadataStore>> OpenRocksDbMetadataStore(const std::string& directory,
                                                                const std::string& boot_id) {
  ASSIGN_OR_RETURN(std::string boot_id_bytes, schema::ParseBootId(boot_id));
  ASSIGN_OR_RETURN(std::unique_ptr<RocksDbDatabase> db, RocksDbDatabase::Open(directory));
  FaultPoint(Fault::kDatabaseOpen);
  auto store = std::make_unique<Store>(std::move(db), std::move(boot_id_bytes));
  RETURN_IF_ERROR(store->PrepareOrFallBack(directory));
  FaultPoint(Fault::kDatabasePrepared);
  return std::unique_ptr<MetadataStore>(std::move(store));
}

void WarmUpRocksDb() { RocksDbDatabase::WarmUp(); }

}  // namespace cachecore
