// Cache's slow half: names, records and data files; objects come into memory here.

#include <glog/logging.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "cachecore/cache.h"
#include "cachecore/fault_point.h"
#include "cachecore/names.h"

namespace cachecore {
namespace {

std::string NameOf(ObjectNumber volume, const std::string& cookie) {
  return std::to_string(volume.value) + "/" + cookie;
}

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

Result<std::optional<VolumeRecord>> Cache::FindVolume(const std::string& key) {
  {
    MutexLock lock(&mu_);
    auto it = volume_numbers_.find(key);
    if (it != volume_numbers_.end()) return std::optional(VolumeRecord{it->second, key});
  }
  ASSIGN_OR_RETURN(std::optional<VolumeRecord> record, store_->FindVolume(key));
  if (record) {
    MutexLock lock(&mu_);
    volume_numbers_[key] = record->number;
    volume_keys_[record->number] = key;
  }
  return record;
}

Result<std::optional<VolumeRecord>> Cache::LoadVolume(ObjectNumber number) {
  {
    MutexLock lock(&mu_);
    auto it = volume_keys_.find(number);
    if (it != volume_keys_.end()) return std::optional(VolumeRecord{number, it->second});
  }
  ASSIGN_OR_RETURN(std::optional<VolumeRecord> record, store_->LoadVolume(number));
  if (record) {
    MutexLock lock(&mu_);
    volume_numbers_[record->key] = number;
    volume_keys_[number] = record->key;
  }
  return record;
}

Result<ObjectNumber> Cache::AddVolume(const std::string& key) {
  if (!IsLegalVolumeKey(key)) {
    return Status(EINVAL, "\"" + key + "\" cannot be a volume key: 1 to 255 bytes, no slash");
  }
  const Status numbers = EnsureNumbers();
  MutexLock load_lock(&load_mu_);
  ASSIGN_OR_RETURN(const std::optional<VolumeRecord> known, FindVolume(key));
  if (known) return known->number;
  RETURN_IF_ERROR(numbers);
  VolumeRecord record;
  record.key = key;
  {
    MutexLock lock(&mu_);
    record.number = ObjectNumber{object_numbers_.Take()};
  }
  MetadataBatch batch;
  batch.put_volumes.push_back(record);
  RETURN_IF_ERROR(store_->Commit(batch, Sync::kNo));
  MutexLock lock(&mu_);
  volume_numbers_[key] = record.number;
  volume_keys_[record.number] = key;
  return record.number;
}

Status Cache::ScanVolumes(const std::function<bool(const VolumeRecord&)>& visit) {
  return store_->ScanVolumes(visit);
}

Status Cache::ScanObjects(ObjectNumber volume,
                          const std::function<bool(const ObjectRecord&)>& visit) {
  return store_->ScanObjects(volume, visit);
}

Status Cache::Quarantine(ObjectNumber number, ObjectNumber volume, const std::string& cookie,
                         const Status& damage) {
  LOG(ERROR) << "object " << number.value << (cookie.empty() ? "" : " (" + cookie + ")")
             << ": damaged record put in quarantine, the object will be fetched again: "
             << damage.message();
  RETURN_IF_ERROR(store_->QuarantineObject(number, volume, cookie));
  return data_.Remove(number);
}

// The file first: records without it are forgotten when they are met, whatever happens in between;
// a file without records would stay for ever, and with them its bytes would count as present.
Status Cache::Forget(const ObjectRecord& record) {
  dropped_.insert(record.number);
  Status status = data_.Remove(record.number);
  if (status.ok()) status = PassFaultPoint(Fault::kDataRemoved);
  MetadataBatch batch;
  batch.erase_objects.push_back(record);
  RETURN_IF_ERROR(store_->Commit(batch, Sync::kNo));
  if (status.ok()) dropped_.erase(record.number);
  return status;
}

// Brings an object into memory.  Success without the object there means that nothing is known of
// it, or nothing any more.
Status Cache::LoadLocked(ObjectNumber number) {
  {
    MutexLock lock(&mu_);
    if (engine_.Find(number) != nullptr) return Status();
  }
  Result<std::optional<ObjectRecord>> record = store_->LoadObject(number);
  if (!record.ok()) {
    if (record.status().error() != EBADMSG) return record.status();
    return Quarantine(number, {}, "", record.status());
  }
  if (!record->has_value()) return Status();
  ObjectRecord& known = **record;
  if (dropped_.contains(number)) return Forget(known);
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
  MakeRoom(options_.max_objects);
  Result<UniqueFd> file = data_.OpenExisting(number, known.size_bytes, tail_end);
  if (file.status().error() == EMFILE || file.status().error() == ENFILE) {
    MakeRoom(0);  // All that nobody uses just now.
    file = data_.OpenExisting(number, known.size_bytes, tail_end);
  }
  if (!file.ok()) {
    if (file.status().error() != ENOENT && file.status().error() != EBADMSG) return file.status();
    LOG(ERROR) << "object " << number.value << " (" << known.cookie
               << "): will be fetched again: " << file.status().message();
    return Forget(known);
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
  object->digest = known.verity;
  object->NoteVerity();
  object->presence = std::move(presence).value();
  QueueUnsynced(object.get(), *durable);
  object->file = std::make_shared<const UniqueFd>(std::move(file).value());
  MutexLock lock(&mu_);
  object->used = engine_.tick();
  by_name_[NameOf(object->volume, object->cookie_key)] = number;
  engine_.AddObject(std::move(object));
  return Status();
}

Status Cache::EnsureLoaded(ObjectNumber number) {
  {
    MutexLock lock(&mu_);
    if (Object* object = engine_.Find(number)) {
      object->used = engine_.tick();
      return Status();
    }
  }
  MutexLock load_lock(&load_mu_);
  RETURN_IF_ERROR(LoadLocked(number));
  MutexLock lock(&mu_);
  return engine_.Find(number) != nullptr
             ? Status()
             : Status(ESTALE, "object " + std::to_string(number.value) + " is gone");
}

// Before one more object comes into memory: of `limit` and more the idle ones that were not used
// for longest go, and an eighth more, so that this is not done each time.
void Cache::MakeRoom(size_t limit) {
  Work work;
  {
    MutexLock lock(&mu_);
    if (engine_.objects().size() < limit) return;
    std::vector<Object*> idle;
    for (const auto& [number, object] : engine_.objects()) {
      if (object->size_known && object->IsIdle()) idle.push_back(object.get());
    }
    const size_t surplus = engine_.objects().size() - limit + limit / 8 + 1;
    const size_t count = std::min(idle.size(), surplus);
    std::partial_sort(idle.begin(), idle.begin() + static_cast<ptrdiff_t>(count), idle.end(),
                      [](const Object* a, const Object* b) { return a->used < b->used; });
    idle.resize(count);
    for (Object* object : idle) engine_.Evict(object, &work.effects);
    Seal(&work);
  }
  Run(std::move(work));
}

// What has left memory is found by name on disk, if at all.
void Cache::ForgetNames(const Effects& effects) {
  for (const Effects::Forgotten& object : effects.forgotten) {
    const auto it = by_name_.find(NameOf(object.volume, object.cookie_key));
    if (it != by_name_.end() && it->second == object.number) by_name_.erase(it);
  }
}

Result<std::optional<ObjectNumber>> Cache::FindByName(const VolumeRecord& volume,
                                                      const std::string& cookie) {
  {
    MutexLock lock(&mu_);
    auto it = by_name_.find(NameOf(volume.number, cookie));
    if (it != by_name_.end()) {
      if (Object* object = engine_.Find(it->second); object != nullptr) {
        object->used = engine_.tick();
        return std::optional(it->second);
      }
      by_name_.erase(it);
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
  MutexLock lock(&mu_);
  if (engine_.Find(**number) == nullptr) return std::optional<ObjectNumber>();
  return number;
}

// Forgets an object and its data; whoever wants it fetches it again.
Status Cache::DropObject(ObjectNumber number, const std::string& why) {
  Work work;
  ObjectRecord record;
  {
    MutexLock lock(&mu_);
    Object* object = engine_.Find(number);
    if (object == nullptr) return Status();
    record.number = number;
    record.volume = object->volume;
    record.cookie = object->cookie_key;
    LOG(WARNING) << object->volume_key << "/" << object->cookie_key
                 << ": the cached copy is dropped: " << why;
    trees_.Forget(number.value);
    engine_.Drop(object, &work.effects);
    Seal(&work);
  }
  Run(std::move(work));
  return Forget(record);
}

// What is known of an object by name, if anything.  A stale one that may be replaced is dropped
// first.
Result<std::optional<ObjectInfo>> Cache::FindKnown(const VolumeRecord& volume,
                                                   const std::string& cookie, bool replace_stale) {
  ASSIGN_OR_RETURN(const std::optional<ObjectNumber> number, FindByName(volume, cookie));
  if (!number) return std::optional<ObjectInfo>();
  std::optional<ObjectInfo> info;
  {
    MutexLock lock(&mu_);
    const Object* object = engine_.Find(*number);
    if (object != nullptr && object->size_known) info = InfoOf(*object);
  }
  if (!info || !info->stale || !replace_stale) return info;
  RETURN_IF_ERROR(DropObject(info->number, "changed at its origin"));
  return std::optional<ObjectInfo>();
}

std::optional<AcquireTicket> Cache::Acquire(const VolumeRecord& volume, const std::string& cookie,
                                            Duration timeout, bool replace_stale, InfoDone done) {
  if (!IsLegalCookie(cookie)) {
    done(Status(ENOENT, "\"" + cookie + "\" cannot be an object's name: 1 to 252 bytes"));
    return std::nullopt;
  }
  if (timeout == Duration::zero()) timeout = options_.request_timeout;
  Work work;
  Result<std::optional<ObjectInfo>> known(std::optional<ObjectInfo>{});
  std::optional<AcquireTicket> ticket;
  Status ids = EnsureIds();
  if (ids.ok()) ids = EnsureNumbers();
  {
    // Held to the end: two look-ups of one name must not make two objects.
    MutexLock load_lock(&load_mu_);
    if (known.ok()) known = FindKnown(volume, cookie, replace_stale);
    MakeRoom(options_.max_objects);
    MutexLock lock(&mu_);
    if (known.ok() && !known->has_value() && refusing_) {
      known = Status(EIO, "no fetcher is attached and the detach policy is `fail`");
    }
    if (known.ok() && !known->has_value() && !ids.ok()) known = ids;
    if (known.ok() && !known->has_value()) {
      Object* object = FindOrMakeUnknown(volume, cookie);
      if (object->size_known) {  // Its OPEN was answered since we looked.
        known = std::optional(InfoOf(*object));
      } else {
        const uint64_t serial = engine_.Acquire(
            object, DeadlineAfter(timeout),
            [this, done, opened = object->number](const Status& ended) {
              done(ended.ok() ? Stat(opened) : Result<ObjectInfo>(ended));
            },
            &work.effects);
        ticket = AcquireTicket{object->number, serial};
        Seal(&work);
      }
    }
  }
  Run(std::move(work));
  if (!ticket) done(known.ok() ? Result<ObjectInfo>(**known) : Result<ObjectInfo>(known.status()));
  return ticket;
}

// An object that only an OPEN on its way knows of.
Object* Cache::FindOrMakeUnknown(const VolumeRecord& volume, const std::string& cookie) {
  const std::string name = NameOf(volume.number, cookie);
  if (const auto it = by_name_.find(name); it != by_name_.end()) {
    if (Object* object = engine_.Find(it->second); object != nullptr) return object;
  }
  auto fresh = std::make_unique<Object>();
  fresh->number = ObjectNumber{object_numbers_.Take()};
  fresh->volume = volume.number;
  fresh->volume_key = volume.key;
  fresh->cookie_key = cookie;
  fresh->used = engine_.tick();
  by_name_[name] = fresh->number;
  return engine_.AddObject(std::move(fresh));
}

// Takes up what an earlier daemon had asked for: its READs go on in the background, and reads that
// the kernel sends again join them.  Its OPENs had no object yet; whoever wants one looks it up
// again.
Status Cache::ResumeJournal() {
  ASSIGN_OR_RETURN(const std::vector<JournalRecord> journal, store_->LoadJournal());
  MetadataBatch done;
  Work work;
  for (const JournalRecord& record : journal) {
    done.erase_journal.push_back(record.msg_id);
    if (record.opcode != static_cast<uint32_t>(wire::Opcode::kRead)) continue;
    // One object that cannot be had must not keep the others, and the daemon, from coming back.
    Status status = EnsureIds();
    if (status.ok()) status = EnsureLoaded(record.object);
    if (!status.ok()) {
      LOG(ERROR) << "journal: a request of object " << record.object.value
                 << " is not taken up: " << status.message();
      continue;
    }
    MutexLock lock(&mu_);
    Object* object = engine_.Find(record.object);
    if (object == nullptr || record.range.end > object->size_bytes) continue;
    engine_.Prefetch(object, record.range, &work.effects);
  }
  {
    MutexLock lock(&mu_);
    Seal(&work);
  }
  if (!journal.empty()) {
    LOG(INFO) << "journal: " << journal.size() << " requests of an earlier life, "
              << work.effects.created.size() << " to be fetched";
  }
  Run(std::move(work));
  FaultPoint(Fault::kJournalTakenUp);
  CommitOrLog(done);
  return Status();
}

}  // namespace cachecore
