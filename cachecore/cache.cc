#include "cachecore/cache.h"

#include <glog/logging.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "cachecore/fault_point.h"

namespace cachecore {
namespace {

constexpr uint64_t kMsgIdBlock = 65536;
constexpr uint64_t kObjectIdBlock = 4096;
constexpr uint64_t kObjectNumberBlock = 256;
// What a mount that was taken away has asked for may still go on for so long, and what somebody
// reads without having mounted it is left to him.
constexpr Duration kUnwantedAfter = std::chrono::seconds(10);

Status Gone(ObjectNumber number) {
  return Status(ESTALE, "object " + std::to_string(number.value) + " is gone");
}

}  // namespace

Cache::Cache(CacheOptions options, const Clock& clock, std::unique_ptr<MetadataStore> store,
             DataStore data, std::function<void()> wake_device)
    : options_(options),
      clock_(clock),
      store_(std::move(store)),
      data_(std::move(data)),
      wake_device_(std::move(wake_device)),
      msg_ids_(kMsgIdBlock / 2),
      object_ids_(kObjectIdBlock / 2),
      object_numbers_(kObjectNumberBlock / 2),
      engine_(
          options.engine, clock,
          [this] { return MsgId{static_cast<uint32_t>(TakeFrom(&msg_ids_))}; },
          // Cyclic below 2^31 and never 0, as the kernel's.
          [this] { return ObjectId{static_cast<uint32_t>(TakeFrom(&object_ids_) & 0x7fffffff)}; }) {
}

Result<std::unique_ptr<Cache>> Cache::Open(CacheOptions options, const Clock& clock,
                                           std::unique_ptr<MetadataStore> store, DataStore data,
                                           std::function<void()> wake_device) {
  std::unique_ptr<Cache> cache(
      new Cache(options, clock, std::move(store), std::move(data), std::move(wake_device)));
  cache->Heal();
  Status ids = cache->EnsureIds();
  if (ids.ok()) ids = cache->EnsureNumbers();
  LOG_IF(ERROR, !ids.ok()) << "no new object can be opened: " << ids.message();
  RETURN_IF_ERROR(cache->ResumeJournal());
  return cache;
}

Status Cache::EnsureIds() {
  RETURN_IF_ERROR(Refill(&msg_ids_, Counter::kMsgId, kMsgIdBlock));
  return Refill(&object_ids_, Counter::kObjectId, kObjectIdBlock);
}

Status Cache::EnsureNumbers() {
  return Refill(&object_numbers_, Counter::kObjectNumber, kObjectNumberBlock);
}

Status Cache::Refill(IdBlock* block, Counter counter, uint64_t count) {
  {
    MutexLock lock(&mu_);
    if (!block->NeedsMore()) return Status();
  }
  MutexLock refill_lock(&refill_mu_);
  {
    MutexLock lock(&mu_);
    if (!block->NeedsMore()) return Status();
  }
  const Result<uint64_t> first = store_->Reserve(counter, count);
  FaultPoint(Fault::kIdsReserved);
  MutexLock lock(&mu_);
  if (first.ok()) {
    block->Add(*first, count);
    return Status();
  }
  return block->CanWait() ? Status() : first.status();
}

ObjectRecord Cache::RecordOf(const Object& object) {
  return {object.number,     object.volume, object.cookie_key,
          object.size_bytes, object.stale,  object.attr,
          object.digest};
}

// Copies out of the engine what Run needs, while the lock is still held.
void Cache::Seal(Work* work) {
  for (const MsgId id : work->effects.created) {
    const Request* request = engine_.FindRequest(id);
    if (request == nullptr || request->opcode == wire::Opcode::kClose) continue;
    JournalRecord record{id, static_cast<uint32_t>(request->opcode), request->object,
                         request->range, engine_.generation()};
    work->journal.push_back(std::move(record));
  }
  ForgetNames(work->effects);
  for (const ObjectNumber number : work->effects.changed) {
    const Object* object = engine_.Find(number);
    if (object != nullptr && object->size_known) work->records.push_back(RecordOf(*object));
  }
}

bool Cache::CommitOrLog(const MetadataBatch& batch) {
  if (batch.empty()) return true;
  // One that succeeds may have gone to memory only: Heal knows.
  const Status status = store_->Commit(batch, Sync::kNo);
  if (!status.ok()) NoteStore(status);
  return status.ok();
}

// Says it once a spell.
void Cache::NoteStore(const Status& status) {
  MutexLock lock(&mu_);
  if (!status.ok() && store_trouble_.empty()) {
    LOG(ERROR) << "metadata cannot be written; reads go on, what is fetched now will be fetched "
                  "again after a restart: "
               << status.message();
  }
  if (status.ok() && !store_trouble_.empty()) LOG(WARNING) << "metadata can be written again";
  store_trouble_ = status.ok() ? "" : status.message();
}

void Cache::Heal() { NoteStore(store_->Heal()); }

std::string Cache::store_trouble() {
  MutexLock lock(&mu_);
  return store_trouble_;
}

void Cache::Run(Work work) {
  Effects& effects = work.effects;
  // Before the answers: a look-up's answer gives the kernel a node id that the next daemon must
  // know.
  MetadataBatch before;
  before.put_objects = std::move(work.records);
  before.put_journal = std::move(work.journal);
  if (!CommitOrLog(before)) {  // Sync tries those again.
    MutexLock lock(&mu_);
    for (const ObjectRecord& record : before.put_objects) {
      if (Object* object = engine_.Find(record.number)) object->record_due = true;
    }
  }

  if (!effects.created.empty()) {
    MutexLock lock(&mu_);
    for (const MsgId id : effects.created) {
      if (!engine_.Publish(id, &effects)) effects.ended.push_back(id);
    }
  }
  if (effects.wake_device) wake_device_();
  for (auto& [done, status] : effects.reads) done(status);
  for (auto& [done, status] : effects.acquires) done(status);
  for (const std::string& line : effects.log) log_.Warn(line);

  // Behind the answers: a journal record that outlives its request costs a look at restart, no
  // more.
  MetadataBatch after;
  after.erase_journal = std::move(effects.ended);
  CommitOrLog(after);
}

ObjectInfo Cache::InfoOf(const Object& object) const {
  return {object.number,     object.volume,     object.volume_key,
          object.cookie_key, object.size_bytes, object.presence.present_bytes(),
          object.state,      object.stale,      object.last_error,
          object.digest};
}

std::string Cache::Circumstances() const {
  return attached_ ? "a fetcher is attached and has not answered" : "no fetcher is attached";
}

Duration Cache::DeadlineAfter(Duration timeout) const {
  return timeout == Duration::zero() ? timeout : clock_.Now() + timeout;
}

Result<ObjectInfo> Cache::Stat(ObjectNumber number) {
  while (true) {
    RETURN_IF_ERROR(EnsureLoaded(number));
    MutexLock lock(&mu_);
    const Object* object = engine_.Find(number);
    if (object == nullptr) continue;
    return object->size_known ? Result<ObjectInfo>(InfoOf(*object)) : Gone(number);
  }
}

Result<std::optional<FileSlice>> Cache::TryRead(ObjectNumber number, ByteRange range) {
  const bool may_ask = EnsureIds().ok();  // Present bytes need no request.
  Work work;
  std::optional<FileSlice> slice;
  while (true) {
    RETURN_IF_ERROR(EnsureLoaded(number));
    MutexLock lock(&mu_);
    Object* object = engine_.Find(number);
    if (object == nullptr) continue;
    if (!object->size_known) return Gone(number);
    range = range.Intersect({0, object->size_bytes});
    const bool present = object->presence.Covers(range);
    if (present) slice = FileSlice{object->file, range, object->verity};
    // A reader that has to wait asks first, read-ahead after it (Read).
    if (!present || !may_ask || refusing_ || object->presence.complete()) return slice;
    engine_.NoteRead(object, range, &work.effects);
    Seal(&work);
    break;
  }
  Run(std::move(work));
  return slice;
}

// The digest as it is now: it may have become known while the read waited.
FileSlice Cache::WithDigest(FileSlice slice, ObjectNumber number) {
  MutexLock lock(&mu_);
  if (const Object* object = engine_.Find(number)) slice.verity = object->verity;
  return slice;
}

ReadTicket Cache::Read(ObjectNumber number, ByteRange range, SliceDone done, pid_t caller) {
  Status status = EnsureIds();
  Work work;
  FileSlice slice;
  ReadTicket ticket;
  while (status.ok()) {
    status = EnsureLoaded(number);
    if (!status.ok()) break;
    MutexLock lock(&mu_);
    Object* object = engine_.Find(number);
    if (object == nullptr) continue;
    if (!object->size_known) {
      status = Gone(number);
    } else {
      slice = {object->file, range.Intersect({0, object->size_bytes}), object->verity};
      if (!object->presence.Covers(slice.range)) {
        if (refusing_) {
          status = Status(EIO, "no fetcher is attached and the detach policy is `fail`");
        } else if (shut_.contains(number)) {
          status = Status(EIO, "its mount was taken away by force");
        } else {
          ticket = engine_.Read(
              object, slice.range, DeadlineAfter(options_.request_timeout),
              [this, slice, done, number](const Status& ended) {
                done(ended, ended.ok() ? WithDigest(slice, number) : slice);
              },
              &work.effects, caller);
          engine_.NoteRead(object, slice.range, &work.effects);
        }
      }
    }
    Seal(&work);
    break;
  }
  Run(std::move(work));
  if (ticket != nullptr) return ticket;
  if (!status.ok()) NoteFailedRead();
  done(status, slice);
  return nullptr;
}

void Cache::NoteFailedRead() {
  MutexLock lock(&mu_);
  engine_.NoteFailedRead();
}

void Cache::NoteUnreadable(ObjectNumber number, const FileSlice& slice) {
  // The reply was made by the kernel, which does not say where it ended.
  std::vector<char> block(kBlockSize);
  ByteRange lost = slice.range;
  std::string why = "they could not be read a moment ago";
  for (uint64_t at = slice.range.begin; at < slice.range.end; at += block.size()) {
    const ssize_t got = pread(slice.file->get(), block.data(), block.size(),
                              static_cast<off_t>(at));
    if (got > 0) continue;
    lost.begin = at;
    why = got < 0 ? std::strerror(errno) : "the file ends before them";
    break;
  }
  MutexLock lock(&mu_);
  engine_.NoteFailedRead();
  Object* object = engine_.Find(number);
  if (object == nullptr || std::exchange(object->unreadable, true)) return;
  object->last_error = "bytes " + lost.ToString() + " of " + data_.PathOf(number) + ": " + why;
  LOG(ERROR) << "object " << object->volume_key << "/" << object->cookie_key
             << ": EIO to reads of what its disk has lost: " << object->last_error;
}

bool Cache::Withdraw(const WaitTicket& ticket, const Status& why) {
  Work work;
  bool withdrawn;
  {
    MutexLock lock(&mu_);
    if (const auto* read = std::get_if<ReadTicket>(&ticket)) {
      withdrawn = engine_.Withdraw(*read, why, &work.effects);
    } else {
      const auto& acquire = std::get<AcquireTicket>(ticket);
      withdrawn = engine_.WithdrawAcquire(acquire.object, acquire.serial, why, &work.effects);
    }
    Seal(&work);
  }
  Run(std::move(work));
  return withdrawn;
}

void Cache::EndUnwanted(
    const std::function<bool(const std::string&, const std::string&)>& wanted,
    const std::function<bool(pid_t)>& is_gone) {
  Work work;
  std::vector<ReadTicket> waiting;
  {
    MutexLock lock(&mu_);
    std::vector<Object*> unwanted;
    for (const auto& [number, object] : engine_.objects()) {
      const bool is_used =
          !object->acquires.empty() || engine_.tick() - object->used < kUnwantedAfter;
      if (is_used || wanted(object->volume_key, object->cookie_key)) continue;
      if (object->waiting.empty()) unwanted.push_back(object.get());
      for (const auto& [position, read] : object->waiting) waiting.push_back(read);
    }
    for (Object* object : unwanted) {
      const bool is_known = object->size_known;
      engine_.EndBackground(object, &work.effects);
      if (is_known && object->IsIdle()) engine_.Evict(object, &work.effects);
    }
    Seal(&work);
  }
  Run(std::move(work));
  // Read-ahead of who was killed, which the kernel cannot take back.
  for (const ReadTicket& read : waiting) {
    if (read->caller == 0 || !is_gone(read->caller)) continue;
    (void)Withdraw(WaitTicket(read), Status(EIO, "nobody has mounted it, and its reader is gone"));
  }
}

void Cache::SetShut(ObjectNumber number, bool shut) {
  Work work;
  {
    MutexLock lock(&mu_);
    if (!shut) {
      shut_.erase(number);
      return;
    }
    shut_.insert(number);
    const Object* object = engine_.Find(number);
    while (object != nullptr && !object->waiting.empty()) {
      const ReadTicket read = object->waiting.begin()->second;
      CHECK(engine_.Withdraw(read, Status(EIO, "its mount is taken away by force"), &work.effects));
    }
    Seal(&work);
  }
  Run(std::move(work));
}

void Cache::Expire() {
  Work work;
  {
    MutexLock lock(&mu_);
    engine_.Expire(Circumstances(), &work.effects);
    Seal(&work);
  }
  Run(std::move(work));
}

std::vector<ObjectInfo> Cache::DescribeObjects() {
  std::vector<ObjectInfo> infos;
  std::vector<ObjectNumber> known;
  const Status status = store_->ScanVolumes([&](const VolumeRecord& volume) {
    return store_
        ->ScanObjects(volume.number,
                      [&](const ObjectRecord& record) {
                        ObjectInfo info{record.number,       volume.number,     volume.key,
                                        record.cookie,       record.size_bytes, 0,
                                        ObjectState::kClose, record.stale,      "",
                                        record.verity};
                        infos.push_back(std::move(info));
                        return true;
                      })
        .ok();
  });
  if (!status.ok()) LOG(ERROR) << "listing objects: " << status.message();
  for (ObjectInfo& info : infos) {
    {
      MutexLock lock(&mu_);
      if (const Object* object = engine_.Find(info.number); object != nullptr) {
        info = InfoOf(*object);
        continue;
      }
    }
    const Result<PresenceMap> presence = store_->LoadPresence(info.number, info.size_bytes);
    if (presence.ok()) info.present_bytes = presence->present_bytes();
  }
  return infos;
}

std::vector<RequestInfo> Cache::DescribeRequests() {
  MutexLock lock(&mu_);
  std::vector<RequestInfo> infos;
  const Duration now = clock_.Now();
  for (const auto& [id, request] : engine_.requests().all()) {
    infos.push_back({id, request->opcode, request->object, request->range, now - request->created,
                     request->waiters, request->delivered == engine_.generation(), request->cause});
  }
  return infos;
}

EngineCounters Cache::counters() {
  MutexLock lock(&mu_);
  return engine_.counters();
}

Generation Cache::generation() {
  MutexLock lock(&mu_);
  return engine_.generation();
}

}  // namespace cachecore
