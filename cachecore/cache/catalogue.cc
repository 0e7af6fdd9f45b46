#include "cachecore/cache/catalogue.h"

#include <glog/logging.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "cachecore/base/fault_point.h"
#include "cachecore/logging/log_fields.h"
#include "cachecore/values/names.h"

namespace cachecore {
namespace {

// Queues for Sync what is present and not durable: a daemon of this boot died before its Sync.
void QueueUnsynced(Object* object, const PresenceMap& durable) {
  const ByteRange whole{0, object->size_bytes};
  if (object->presence.present_bytes() == durable.present_bytes()) return;
  for (const ByteRange absent : durable.Gaps(whole)) {
    for (ByteRange range = absent; range.begin < absent.end; range.begin = range.end) {
      range.begin = object->presence.FirstPresent({range.begin, absent.end});
      range.end = object->presence.FirstMissing({range.begin, absent.end});
      if (range.empty()) break;
      object->unsynced.push_back(range);
      object->unsynced_bytes += range.size();
    }
  }
}

}  // namespace

Catalogue::Catalogue(size_t max_objects, MetadataStore* store, const DataStore& data,
                     TreeCache* trees, IdReserve* ids, GuardedEngine* core)
    : max_objects_(max_objects),
      store_(store),
      data_(data),
      trees_(trees),
      ids_(ids),
      core_(core) {}

Result<std::optional<VolumeRecord>> Catalogue::FindVolume(const std::string& key) {
  {
    MutexLock lock(&core_->mu);
    auto it = volume_numbers_.find(key);
    if (it != volume_numbers_.end()) return std::optional(VolumeRecord{it->second, key});
  }
  ASSIGN_OR_RETURN(std::optional<VolumeRecord> record, store_->FindVolume(key));
  if (record) {
    MutexLock lock(&core_->mu);
    volume_numbers_[key] = record->number;
    volume_keys_[record->number] = key;
  }
  return record;
}

Result<std::optional<VolumeRecord>> Catalogue::LoadVolume(ObjectNumber number) {
  {
    MutexLock lock(&core_->mu);
    auto it = volume_keys_.find(number);
    if (it != volume_keys_.end()) return std::optional(VolumeRecord{number, it->second});
  }
  ASSIGN_OR_RETURN(std::optional<VolumeRecord> record, store_->LoadVolume(number));
  if (record) {
    MutexLock lock(&core_->mu);
    volume_numbers_[record->key] = number;
    volume_keys_[number] = record->key;
  }
  return record;
}

Result<ObjectNumber> Catalogue::AddVolume(const std::string& key) {
  if (!IsLegalVolumeKey(key)) {
    return Status(EINVAL, "\"" + key + "\" cannot be a volume key: 1 to 255 bytes, no slash");
  }
  const Status numbers = ids_->EnsureNumbers();
  MutexLock load_lock(&load_mu);
  ASSIGN_OR_RETURN(const std::optional<VolumeRecord> known, FindVolume(key));
  if (known) return known->number;
  RETURN_IF_ERROR(numbers);
  VolumeRecord record;
  record.key = key;
  {
    MutexLock lock(&core_->mu);
    record.number = ids_->TakeNumber();
  }
  MetadataBatch batch;
  batch.put_volumes.push_back(record);
  RETURN_IF_ERROR(store_->Commit(batch, Sync::kNo));
  MutexLock lock(&core_->mu);
  volume_numbers_[key] = record.number;
  volume_keys_[record.number] = key;
  return record.number;
}

Status Catalogue::Quarantine(ObjectNumber number, ObjectNumber volume, const std::string& cookie,
                             const Status& damage) {
  LOG(ERROR) << LogAbout{LogKind::kDamagedRecord,
                         cookie.empty() ? std::to_string(number.value) : cookie}
             << "object " << number.value << (cookie.empty() ? "" : " (" + cookie + ")")
             << ": damaged record put in quarantine, the object will be fetched again: "
             << damage.message();
  return store_->QuarantineObject(number, volume, cookie,
                                  [this](ObjectNumber one) { return data_.Remove(one); });
}

// The file first: after a death in between, the records without a file are erased when they are
// loaded.  A file without records would stay for ever.
Status Catalogue::EraseObject(const ObjectRecord& record) {
  dropped_.insert(record.number);
  Status status = data_.Remove(record.number);
  if (status.ok()) status = PassFaultPoint(Fault::kDataRemoved);
  MetadataBatch batch;
  batch.erase_objects.push_back(record);
  RETURN_IF_ERROR(store_->Commit(batch, Sync::kNo));
  if (status.ok()) dropped_.erase(record.number);
  return status;
}

// A new object is in memory before it has a file, and in the store before it leaves memory.
Status Catalogue::RemoveStray(ObjectNumber number) {
  MutexLock load_lock(&load_mu);
  {
    MutexLock lock(&core_->mu);
    if (core_->engine.Find(number) != nullptr) return Status(EBUSY, "the object is in memory");
  }
  ASSIGN_OR_RETURN(const std::optional<ObjectRecord> record, store_->LoadObject(number));
  if (record) return Status(EBUSY, "the object is known");
  return data_.Remove(number);
}

// Without this check every object would count as lost while the data's file system is not mounted.
Status Catalogue::CheckDataIsThere() {
  const Status there = data_.CheckIsThere();
  bool has_objects = false;
  if (!there.ok()) {
    RETURN_IF_ERROR(store_->ScanVolumes([&](const VolumeRecord& volume) {
      const Status scanned = store_->ScanObjects(
          volume.number, [&](const ObjectRecord&) { return !(has_objects = true); });
      return scanned.ok() && !has_objects;
    }));
  }
  if (has_objects) return there;
  const Status marked = data_.Mark();
  LOG_IF(WARNING, !marked.ok()) << marked.message();  // On a full disk; the next start tries again.
  return Status();
}

// Makes an empty file for an object whose own is lost.  The object keeps its number, so that
// programs that have it open read on.  The record is first: nothing of this file may count as
// present.
Result<UniqueFd> Catalogue::MakeEmptyFile(ObjectNumber number, uint64_t size_bytes) {
  MetadataBatch batch;
  batch.remove_presence.push_back({number, {0, size_bytes}, Presence::kDurable});
  RETURN_IF_ERROR(store_->Commit(batch, cachecore::Sync::kYes));
  return data_.Create(number, size_bytes);
}

Status Catalogue::MakeLostFile(ObjectNumber number) {
  MutexLock load_lock(&load_mu);
  uint64_t size_bytes = 0;
  {
    MutexLock lock(&core_->mu);
    const Object* object = core_->engine.Find(number);
    if (object == nullptr) return Status(ESTALE, "the object was dropped");
    if (!object->size_known || object->file != nullptr) return Status();
    size_bytes = object->size_bytes;
  }
  ASSIGN_OR_RETURN(UniqueFd file, MakeEmptyFile(number, size_bytes));
  MutexLock lock(&core_->mu);
  Object* object = core_->engine.Find(number);
  if (object == nullptr) return Status(ESTALE, "the object was dropped");
  object->file = std::make_shared<const UniqueFd>(std::move(file));
  return Status();
}

// Brings an object into memory.  On success without the object in memory, nothing is known of it.
Status Catalogue::LoadLocked(ObjectNumber number) {
  {
    MutexLock lock(&core_->mu);
    if (core_->engine.Find(number) != nullptr) return Status();
  }
  Result<std::optional<ObjectRecord>> record = store_->LoadObject(number);
  if (!record.ok()) {
    if (record.status().error() != EBADMSG) return record.status();
    return Quarantine(number, {}, "", record.status());
  }
  if (!record->has_value()) return Status();
  ObjectRecord& known = **record;
  if (dropped_.contains(number)) return EraseObject(known);
  ASSIGN_OR_RETURN(const std::optional<VolumeRecord> volume, LoadVolume(known.volume));
  if (!volume) {
    const Status lost(EBADMSG, "its volume's record is lost");
    return Quarantine(number, known.volume, known.cookie, lost);
  }
  Result<PresenceMap> presence = store_->LoadPresence(number, known.size_bytes);
  if (!presence.ok()) {
    if (presence.status().error() != EBADMSG) return presence.status();
    return Quarantine(number, known.volume, known.cookie, presence.status());
  }
  Result<PresenceMap> durable = store_->LoadDurablePresence(number, known.size_bytes);
  if (!durable.ok()) return durable.status();
  const uint64_t tail_end = known.verity ? VerityLayout(known.size_bytes).tail_end() : 0;
  MakeRoom();
  Result<UniqueFd> file = data_.OpenExisting(number, known.size_bytes, tail_end);
  if (file.status().error() == EMFILE || file.status().error() == ENFILE) {
    MakeRoomFor(0);  // Evicts every idle object.
    file = data_.OpenExisting(number, known.size_bytes, tail_end);
  }
  if (!file.ok()) {
    if (file.status().error() != ENOENT && file.status().error() != EBADMSG) return file.status();
    LOG(ERROR) << LogAbout{LogKind::kLostBytes, known.cookie} << "object " << number.value << " ("
               << known.cookie << "): will be fetched again: " << file.status().message();
    file = MakeEmptyFile(number, known.size_bytes);
    // Its OPEN makes the file, and waits for the disk as any other.
    if (!file.ok() && !TakesNothing(file.status().error())) return file.status();
    presence = PresenceMap(known.size_bytes);
    durable = PresenceMap(known.size_bytes);
  }
  auto object = std::make_unique<Object>();
  object->number = number;
  object->volume = known.volume;
  object->volume_key = volume->key;
  object->cookie_key = known.cookie;
  object->size_known = true;
  object->size_bytes = known.size_bytes;
  object->attr = std::move(known.attr);
  object->stale = known.stale;
  object->facts = known.facts;
  object->digest = known.verity;
  object->NoteVerity();
  object->presence = std::move(presence).value();
  QueueUnsynced(object.get(), *durable);
  if (file.ok()) object->file = std::make_shared<const UniqueFd>(std::move(file).value());
  LoadUses(object.get());
  MutexLock lock(&core_->mu);
  core_->names.Set(object->volume, object->cookie_key, number);
  core_->engine.AddObject(std::move(object));
  return Status();
}

// Advice for the order of culling: nothing of it keeps an object from being loaded.
void Catalogue::LoadUses(Object* object) {
  Duration now;
  {
    MutexLock lock(&core_->mu);
    if (!core_->engine.notes_uses()) return;
    now = core_->engine.tick();
  }
  const Result<DataFile> file = data_.Find(object->number);
  object->uses.Restore(store_->LoadUses(object->number), file.ok() ? file->used : 0, now);
  for (uint64_t at = 0;
       (at = object->presence.FirstPresent({at, object->size_bytes})) < object->size_bytes;) {
    object->uses.MakeLeaf(at);
    at += PresenceLeaf::kBytes - at % PresenceLeaf::kBytes;
  }
}

bool Catalogue::NoteUse(ObjectNumber number) {
  Object* object = core_->engine.Find(number);
  if (object != nullptr) object->used = core_->engine.tick();
  return object != nullptr;
}

Status Catalogue::EnsureLoaded(ObjectNumber number) {
  {
    MutexLock lock(&core_->mu);
    if (NoteUse(number)) return Status();
  }
  RETURN_IF_ERROR(LoadUnused(number));
  MutexLock lock(&core_->mu);
  NoteUse(number);
  return Status();
}

Status Catalogue::LoadUnused(ObjectNumber number) {
  MutexLock load_lock(&load_mu);
  RETURN_IF_ERROR(LoadLocked(number));
  MutexLock lock(&core_->mu);
  return core_->engine.Find(number) != nullptr ? Status() : ObjectIsGone(number);
}

Result<ObjectInfo> Catalogue::Stat(ObjectNumber number) {
  while (true) {
    RETURN_IF_ERROR(EnsureLoaded(number));
    MutexLock lock(&core_->mu);
    const Object* object = core_->engine.Find(number);
    if (object == nullptr) continue;
    return object->size_known ? Result<ObjectInfo>(InfoOf(*object)) : ObjectIsGone(number);
  }
}

// Evicts an eighth more than needed, so that this is not done each time.
void Catalogue::MakeRoomFor(size_t limit) {
  Transaction transaction(core_);
  if (core_->engine.objects().size() < limit) return;
  std::vector<Object*> idle;
  for (const auto& [number, object] : core_->engine.objects()) {
    if (object->size_known && object->IsIdle()) idle.push_back(object.get());
  }
  const size_t surplus = core_->engine.objects().size() - limit + limit / 8 + 1;
  const size_t count = std::min(idle.size(), surplus);
  std::partial_sort(idle.begin(), idle.begin() + static_cast<ptrdiff_t>(count), idle.end(),
                    [](const Object* a, const Object* b) { return a->used < b->used; });
  idle.resize(count);
  for (Object* object : idle) core_->engine.Evict(object, transaction.effects());
}

Result<std::optional<ObjectNumber>> Catalogue::FindByName(const VolumeRecord& volume,
                                                          const std::string& cookie) {
  {
    MutexLock lock(&core_->mu);
    if (const auto known = core_->names.Find(volume.number, cookie)) {
      if (NoteUse(*known)) return known;
      core_->names.Remove(volume.number, cookie);
    }
  }
  Result<std::optional<ObjectNumber>> number = store_->FindObject(volume.number, cookie);
  if (!number.ok()) {
    if (number.status().error() != EBADMSG) return number.status();
    RETURN_IF_ERROR(Quarantine({}, volume.number, cookie, number.status()));
    return std::optional<ObjectNumber>();
  }
  if (!number->has_value()) return number;
  RETURN_IF_ERROR(LoadLocked(**number));
  MutexLock lock(&core_->mu);
  if (!NoteUse(**number)) return std::optional<ObjectNumber>();
  return number;
}

Status Catalogue::DropObject(ObjectNumber number, const std::string& why) {
  ObjectRecord record;
  {
    Transaction transaction(core_);
    Object* object = core_->engine.Find(number);
    if (object == nullptr) return Status();
    record.number = number;
    record.volume = object->volume;
    record.cookie = object->cookie_key;
    const std::string name = object->volume_key + "/" + object->cookie_key;
    LOG(WARNING) << LogAbout{LogKind::kLostBytes, name} << name
                 << ": the cached copy is dropped: " << why;
    trees_->Forget(number.value);
    core_->engine.Drop(object, transaction.effects());
  }
  return EraseObject(record);
}

}  // namespace cachecore
