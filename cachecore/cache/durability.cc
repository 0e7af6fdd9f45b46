#include "cachecore/cache/durability.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "cachecore/base/fault_point.h"
#include "cachecore/logging/log_fields.h"

namespace cachecore {
namespace {

#ifdef HOLDFAST_BREAK_SYNC_ORDER
// For a program that tests/crash/power_cut_test.py must find wrong, and for nothing else.
constexpr bool kDataFirst = false;
#else
constexpr bool kDataFirst = true;
#endif

// Writes the ranges to disk.  In small steps: a killed process cannot leave a system call that
// waits for the disk, and the next daemon would have to wait until it ends.
Status WriteOut(int fd, const std::vector<ByteRange>& ranges) {
  constexpr uint64_t kWriteStep = 4 << 20;
  for (const ByteRange range : ranges) {
    for (uint64_t at = range.begin; at < range.end; at += kWriteStep) {
      const auto length = static_cast<off64_t>(std::min(kWriteStep, range.end - at));
      // The kernel reports an error once, here or by fdatasync, so neither may be ignored.
      if (sync_file_range(fd, static_cast<off64_t>(at), length,
                          SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                              SYNC_FILE_RANGE_WAIT_AFTER) != 0) {
        return Status::FromErrno(errno, "sync_file_range");
      }
    }
  }
  return fdatasync(fd) == 0 ? Status() : Status::FromErrno(errno, "fdatasync");
}

}  // namespace

Durability::Durability(const Clock& clock, MetadataStore* store, const DataStore& data,
                       IdReserve* ids, MetadataWriter* writer, LogLimiter* log, GuardedEngine* core,
                       Catalogue* catalogue, Count synced)
    : clock_(clock),
      store_(store),
      data_(data),
      ids_(ids),
      writer_(writer),
      log_(log),
      core_(core),
      catalogue_(catalogue),
      synced_(synced) {}

uint64_t Durability::unsynced_bytes() {
  MutexLock lock(&core_->mu);
  uint64_t bytes = 0;
  for (const auto& [number, object] : core_->engine.objects()) bytes += object->unsynced_bytes;
  return bytes;
}

SyncCounters Durability::counters() {
  MutexLock lock(&core_->mu);
  return counters_;
}

// Syncs what an earlier daemon of this boot has filled and did not sync before it died.  Loading an
// object queues its ranges; the objects that are not in memory are loaded here.
void Durability::AdoptUnsynced() {
  const Result<std::vector<ObjectNumber>> objects = store_->FindUndurable();
  Status status = objects.status();
  for (size_t i = 0; objects.ok() && i < objects->size(); ++i) {
    const Status loaded = catalogue_->LoadUnused((*objects)[i]);
    if (!loaded.ok()) status = loaded;
  }
  LOG_IF(ERROR, !status.ok()) << "some of what was fetched before the last restart of holdfastd "
                                 "would be lost by a power cut: "
                              << status.message();
}

Status Durability::RemovePresence(const MetadataBatch& batch) {
  MutexLock durable_lock(&durable_mu_);
  return store_->Commit(batch, cachecore::Sync::kYes);
}

// Presence that is recorded while its object is dropped would stay in the store.
void Durability::EraseStray(ObjectNumber number) {
  {
    MutexLock lock(&core_->mu);
    if (core_->engine.Find(number) != nullptr) return;
  }
  // It may have left memory alone; then it still has a record.
  const Result<std::optional<ObjectRecord>> record = store_->LoadObject(number);
  if (!record.ok() || record->has_value()) return;
  MetadataBatch batch;
  batch.erase_objects.push_back({});
  batch.erase_objects.back().number = number;
  writer_->CommitOrLog(batch);
}

Status Durability::RecordDurable(const SyncItem& item) {
  MutexLock durable_lock(&durable_mu_);
  MetadataBatch batch;
  {
    MutexLock lock(&core_->mu);
    const Object* object = core_->engine.Find(item.number);
    if (object == nullptr) return Status();
    for (const ByteRange part : core_->engine.Synced(*object)) {
      batch.add_presence.push_back({item.number, part, Presence::kDurable});
    }
  }
  Status status = batch.empty() ? Status() : store_->Commit(batch, Sync::kYes);
  LOG_IF(ERROR, !status.ok()) << "not durable yet, will be tried again: " << status.message();
  {
    MutexLock lock(&core_->mu);
    // Presence that was removed meanwhile has its removal recorded after this record.
    if (Object* object = core_->engine.Find(item.number))
      core_->engine.FinishSync(object, !status.ok());
  }
  if (status.ok() && !batch.empty()) EraseStray(item.number);
  return status;
}

// The kernel has thrown away pages that it could not write.  It reports this once, and not which
// pages.  So all that was filled since the last sync is absent from here on; what is durable is not
// touched by it.
void Durability::LoseUnsynced(const SyncItem& item, const Status& why) {
  const Status ids = ids_->EnsureIds();
  MetadataBatch batch;
  std::string name;
  uint64_t bytes = 0;
  {
    Transaction transaction(core_);
    Object* object = core_->engine.Find(item.number);
    if (object == nullptr) return;
    name = object->volume_key + "/" + object->cookie_key;
    // What the fetcher has written before this and not declared yet may be gone, too.
    core_->engine.EndInstance(object, ids.ok(), transaction.effects());
    for (const ByteRange range : core_->engine.Undurable(*object)) {
      batch.remove_presence.push_back({item.number, range, Presence::kDurable});
      bytes += range.size();
    }
  }
  if (batch.empty()) return;
  const ByteRange hull{batch.remove_presence.front().range.begin,
                       batch.remove_presence.back().range.end};
  log_->Error("object " + name + ": " + std::to_string(bytes) + " bytes in " + hull.ToString() +
                  " of " + data_.PathOf(item.number) +
                  " may not have reached the disk and are fetched again: " + why.message(),
              {LogKind::kLostBytes, name, hull});
  Status recorded;
  {
    MutexLock durable_lock(&durable_mu_);
    // The record first, as in RemoveWrongPresence.
    recorded = store_->Commit(batch, cachecore::Sync::kYes);
    MutexLock lock(&core_->mu);
    Object* object = core_->engine.Find(item.number);
    if (object == nullptr) return;
    for (const auto& change : batch.remove_presence)
      core_->engine.RemovePresence(object, change.range);
    core_->engine.FinishSync(object, /*again=*/true);
  }
  if (recorded.ok()) return;
  // The next daemon would believe the record, unless there is no file.
  MutexLock load_lock(&catalogue_->load_mu);
  const Status dropped = catalogue_->DropObject(
      item.number, "what was lost cannot be recorded: " + recorded.message());
  LOG_IF(ERROR, !dropped.ok()) << dropped.message();
}

void Durability::RemoveWrongPresence(const ObjectVerity& object,
                                     const std::vector<WrongRange>& wrong) {
  MetadataBatch batch;
  for (const WrongRange& one : wrong) {
    LOG(ERROR) << LogAbout{LogKind::kWrongBytes, object.name, one.range} << "object " << object.name
               << ": bytes " << one.range.ToString() << " in the cache: " << one.why
               << "; they are fetched again";
    batch.remove_presence.push_back({object.number, one.range, Presence::kDurable});
  }
  // The record first: while memory says present, the fetcher does not fetch and declare them again.
  MutexLock durable_lock(&durable_mu_);  // A sync that is under way must not add them again.
  const Status recorded = store_->Commit(batch, cachecore::Sync::kYes);
  LOG_IF(ERROR, !recorded.ok()) << "that cannot be recorded, and is found again after a restart: "
                                << recorded.message();
  MutexLock lock(&core_->mu);
  Object* known = core_->engine.Find(object.number);
  if (known == nullptr) return;  // It comes back as its records say.
  for (const WrongRange& one : wrong) core_->engine.RemoveWrongPresence(known, one.range);
}

void Durability::SyncOne(const SyncItem& item) {
  if (!kDataFirst) RecordDurable(item).IgnoreError("the wrong order is for a test of power cuts");
  // Data first: a durable record must never be of bytes that a power cut can take.
  Status written = WriteOut(item.file->get(), item.ranges);
  if (written.ok()) written = PassFaultPoint(Fault::kDataSynced);
  if (!written.ok()) {
    LoseUnsynced(item, written);
    return;
  }
  if (kDataFirst && !RecordDurable(item).ok()) return;
  MutexLock lock(&core_->mu);
  for (const ByteRange range : item.ranges) {
    counters_.bytes += range.size();
    synced_.Add(range.size());
  }
}

// Records that changed while the store could not be written to.
void Durability::WriteDueRecords() {
  MetadataBatch batch;
  {
    MutexLock lock(&core_->mu);
    for (const auto& [number, object] : core_->engine.objects()) {
      if (std::exchange(object->record_due, false)) batch.put_objects.push_back(RecordOf(*object));
    }
  }
  if (writer_->CommitOrLog(batch)) return;
  MutexLock lock(&core_->mu);
  for (const ObjectRecord& record : batch.put_objects) {
    if (Object* object = core_->engine.Find(record.number)) object->record_due = true;
  }
}

void Durability::Sync() {
  const Duration started = clock_.Now();
  if (!std::exchange(adopted_, true)) AdoptUnsynced();
  std::vector<SyncItem> items;
  {
    MutexLock lock(&core_->mu);
    for (const auto& [number, object] : core_->engine.objects()) {
      if (object->unsynced.empty()) continue;
      // A descriptor of its own: a cull waits for the users of the object's.
      UniqueFd again(fcntl(object->file->get(), F_DUPFD_CLOEXEC, 0));
      const auto file =
          again.valid() ? std::make_shared<const UniqueFd>(std::move(again)) : object->file;
      items.push_back({number, file, core_->engine.BeginSync(object.get())});
    }
  }
  for (const SyncItem& item : items) SyncOne(item);
  WriteDueRecords();
  catalogue_->MakeRoom();  // Some are idle only now.
  MutexLock lock(&core_->mu);
  counters_.longest = std::max(counters_.longest, clock_.Now() - started);
}

}  // namespace cachecore
