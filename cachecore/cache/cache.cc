#include "cachecore/cache/cache.h"

#include <glog/logging.h>

#include <utility>

#include "cachecore/base/fault_point.h"

namespace cachecore {

Cache::Cache(CacheOptions options, const Clock& clock, std::unique_ptr<MetadataStore> store,
             DataStore data, std::function<void()> wake_device)
    : clock_(clock),
      store_(std::move(store)),
      data_(std::move(data)),
      log_(clock),
      left_out_(Totals::Find(options.totals, "log_lines_left_out")),
      left_out_before_(left_out_.value()),
      ids_(store_.get(), options.msg_id_block),
      writer_(store_.get()),
      core_(options.engine, clock, &ids_, &writer_, &log_, std::move(wake_device), options.totals),
      catalogue_(options.max_objects, store_.get(), data_, &trees_, &ids_, &core_),
      acquisitions_(options.request_timeout, &ids_, &core_, &catalogue_),
      reads_(options.request_timeout, data_, &ids_, &core_, &catalogue_),
      durability_(clock, store_.get(), data_, &ids_, &writer_, &log_, &core_, &catalogue_,
                  Totals::Find(options.totals, "bytes_synced")),
      verification_(clock, &trees_, &log_, &core_, &catalogue_, &durability_, &reads_),
      device_({options.fail_on_detach, options.serve_through},
              {store_.get(), data_, &ids_, &writer_, &log_, &core_, &catalogue_, &acquisitions_,
               &durability_, &verification_, options.totals}),
      culler_(clock, {store_.get(), data_, &choices_, &ids_, &core_, &catalogue_, &durability_,
                      &device_}) {}

Result<std::unique_ptr<Cache>> Cache::Open(CacheOptions options, const Clock& clock,
                                           std::unique_ptr<MetadataStore> store, DataStore data,
                                           std::function<void()> wake_device) {
  std::unique_ptr<Cache> cache(
      new Cache(options, clock, std::move(store), std::move(data), std::move(wake_device)));
  RETURN_IF_ERROR(cache->catalogue_.CheckDataIsThere());
  cache->writer_.Heal();
  cache->choices_.Load();
  Status ids = cache->ids_.EnsureIds();
  if (ids.ok()) ids = cache->ids_.EnsureNumbers();
  LOG_IF(ERROR, !ids.ok()) << "no new object can be opened: " << ids.message();
  RETURN_IF_ERROR(cache->ReplayJournal(options.engine.kernel_instances));
  return cache;
}

// Requests what an earlier daemon had requested: its READs go on in the background, and reads that
// the kernel sends again join them.  Its OPENs had no object yet; the next look-up sends another.
Status Cache::ReplayJournal(bool has_kernel_instances) {
  ASSIGN_OR_RETURN(const std::vector<JournalRecord> journal, store_->LoadJournal());
  MetadataBatch done;
  size_t created = 0;
  for (const JournalRecord& record : journal) {
    done.erase_journal.push_back(record.msg_id);
    if (record.opcode != static_cast<uint32_t>(wire::Opcode::kRead)) continue;
    // Nothing is asked of the kernel's programs that no reader waits for; see ResumeDevice.
    if (has_kernel_instances) continue;
    // An object that cannot be loaded must not stop the others, and the daemon, from starting.
    Status status = ids_.EnsureIds();
    if (status.ok()) status = catalogue_.EnsureLoaded(record.object);
    if (!status.ok()) {
      LOG(ERROR) << "journal: a request of object " << record.object.value
                 << " is not replayed: " << status.message();
      continue;
    }
    Transaction transaction(&core_);
    Object* object = core_.engine.Find(record.object);
    if (object == nullptr || record.range.end > object->size_bytes) continue;
    core_.engine.Prefetch(object, record.range, transaction.effects());
    created += transaction.effects()->created.size();
  }
  if (!journal.empty()) {
    LOG(INFO) << "journal: " << journal.size() << " requests of an earlier daemon, " << created
              << " to be fetched";
  }
  FaultPoint(Fault::kJournalReplayed);
  writer_.CommitOrLog(done);
  return Status();
}

bool Cache::Withdraw(const WaitTicket& ticket, const Status& why) {
  const auto* read = std::get_if<ReadTicket>(&ticket);
  return read != nullptr ? reads_.Withdraw(*read, why)
                         : acquisitions_.Withdraw(std::get<AcquireTicket>(ticket), why);
}

Status Cache::Drop(ObjectNumber number, const std::string& why) {
  RETURN_IF_ERROR(ids_.EnsureIds());
  RETURN_IF_ERROR(catalogue_.EnsureLoaded(number));
  MutexLock load_lock(&catalogue_.load_mu);
  return catalogue_.DropObject(number, why);
}

void Cache::Expire() {
  left_out_.Set(left_out_before_ + log_.left_out());
  Transaction transaction(&core_);
  core_.engine.Expire(core_.engine.is_attached() ? "a fetcher is attached and has not answered"
                                                 : "no fetcher is attached",
                      transaction.effects());
}

std::vector<ObjectInfo> Cache::DescribeObjects() {
  std::vector<ObjectInfo> infos;
  const Status status = store_->ScanVolumes([&](const VolumeRecord& volume) {
    return store_
        ->ScanObjects(volume.number,
                      [&](const ObjectRecord& record) {
                        ObjectInfo info{record.number,       volume.number,     volume.key,
                                        record.cookie,       record.size_bytes, 0,
                                        ObjectState::kClose, record.stale,      "",
                                        record.verity,       record.facts};
                        infos.push_back(std::move(info));
                        return true;
                      })
        .ok();
  });
  if (!status.ok()) LOG(ERROR) << "listing objects: " << status.message();
  for (ObjectInfo& info : infos) {
    {
      MutexLock lock(&core_.mu);
      if (const Object* object = core_.engine.Find(info.number); object != nullptr) {
        info = InfoOf(*object);
        continue;
      }
    }
    const Result<PresenceMap> presence = store_->LoadPresence(info.number, info.size_bytes);
    if (presence.ok()) info.present_bytes = presence->present_bytes();
  }
  return infos;
}

Result<uint64_t> Cache::AllocatedBytes() const {
  uint64_t allocated = 0;
  RETURN_IF_ERROR(data_.Scan([&](const DataFile& file) { allocated += file.allocated; }));
  return allocated;
}

std::vector<RequestInfo> Cache::DescribeRequests() {
  MutexLock lock(&core_.mu);
  std::vector<RequestInfo> infos;
  const Duration now = clock_.Now();
  for (const auto& [id, request] : core_.engine.requests().all()) {
    // Before the first attachment the generation is 0, as that of a request that never went out.
    const bool delivered =
        request->delivered.value != 0 && request->delivered == core_.engine.generation();
    uint32_t waiters = request->waiters;
    const Object* object = core_.engine.Find(request->object);
    // Mounts wait for an OPEN, and reads for the READs behind it.
    if (request->opcode == wire::Opcode::kOpen && object != nullptr) {
      waiters += static_cast<uint32_t>(object->acquires.size());
    }
    infos.push_back({id, request->opcode, request->object, request->range, now - request->created,
                     waiters, request->published, delivered, request->cause});
  }
  return infos;
}

EngineCounters Cache::counters() {
  MutexLock lock(&core_.mu);
  return core_.engine.counters();
}

TraceAnswer Cache::Trace(const TraceQuestion& question) {
  MutexLock lock(&core_.mu);
  return core_.engine.Trace(question);
}

Result<ObjectHistory> Cache::HistoryOf(ObjectNumber number) {
  while (true) {
    RETURN_IF_ERROR(catalogue_.EnsureLoaded(number));
    MutexLock lock(&core_.mu);
    const Object* object = core_.engine.Find(number);
    if (object != nullptr) return core_.engine.HistoryOf(*object);
  }
}

Generation Cache::generation() {
  MutexLock lock(&core_.mu);
  return core_.engine.generation();
}

}  // namespace cachecore
