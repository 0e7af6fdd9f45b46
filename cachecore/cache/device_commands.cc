// DevicePort's commands: what a fetcher declares and answers.

#include <fcntl.h>
#include <glog/logging.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <utility>

#include "cachecore/base/fault_point.h"
#include "cachecore/cache/device_port.h"

namespace cachecore {
namespace {

// After so many new READs more ids are reserved: each `filled` and `cread` may have some hundreds
// of holes requested again, and a packet has thousands of them.
constexpr size_t kMaxCreated = 1024;

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;

// Whether the file is sealed against every change and all of `range` is in it.
bool IsSealedWith(const UniqueFd& file, ByteRange range) {
  // Only a memfd has seals at all.
  const int seals = file.valid() ? fcntl(file.get(), F_GET_SEALS) : -1;
  if (seals < 0 || (seals & kSeals) != kSeals) return false;
  const off_t hole = lseek(file.get(), static_cast<off_t>(range.begin), SEEK_HOLE);
  return hole >= 0 && static_cast<uint64_t>(hole) >= range.end;
}

}  // namespace

std::vector<int32_t> DevicePort::Execute(const std::vector<Result<wire::Command>>& commands) {
  std::vector<int32_t> results;
  std::vector<const wire::Command*> fills;
  const auto flush = [&] {
    if (!fills.empty()) {
      BeginFills();
      ExecuteFills(fills, &results);
      EndFills();
    }
    fills.clear();
  };
  for (const Result<wire::Command>& command : commands) {
    if (command.ok() && (std::holds_alternative<wire::FilledCommand>(*command) ||
                         std::holds_alternative<wire::CreadCommand>(*command))) {
      fills.push_back(&*command);
      continue;
    }
    flush();
    if (const Status ids = command.ok() ? ids_->EnsureIds() : command.status(); ids.ok()) {
      results.push_back(ExecuteOne(*command));
    } else {
      results.push_back(-ids.error());
    }
  }
  flush();
  return results;
}

void DevicePort::BeginFills() {
  MutexLock lock(&fills_mu_);
  ++fills_begun_;
}

void DevicePort::EndFills() {
  MutexLock lock(&fills_mu_);
  ++fills_ended_;
  fills_done_.NotifyAll();
}

void DevicePort::AwaitFills() {
  MutexLock lock(&fills_mu_);
  for (const uint64_t begun = fills_begun_; fills_ended_ < begun;) fills_done_.Wait(&fills_mu_);
}

int32_t DevicePort::RecordFill(const wire::Command& command, MetadataBatch* batch) {
  const auto* filled = std::get_if<wire::FilledCommand>(&command);
  if (filled == nullptr) return 0;
  const Object* object = core_->engine.FindLive(filled->object_id);
  if (object == nullptr || !object->size_known || filled->range.end > object->size_bytes) {
    return -EINVAL;
  }
  const ByteRange whole = object->presence.RoundInward(filled->range);
  // What lies beside the culled range is recorded by the next Sync.
  if (object->culling && object->culling->range.Overlaps(whole)) return 0;
  if (!whole.empty() && !object->presence.Covers(whole)) {
    batch->add_presence.push_back({object->number, whole, Presence::kThisBoot});
  }
  return 0;
}

// A run of `filled` and `cread` shares one write to the store, which comes before any of them
// counts.
void DevicePort::ExecuteFills(const std::vector<const wire::Command*>& commands,
                              std::vector<int32_t>* results) {
  const size_t first = results->size();
  MetadataBatch batch;
  {
    MutexLock lock(&core_->mu);
    for (const wire::Command* command : commands) {
      results->push_back(RecordFill(*command, &batch));
    }
  }
  writer_->CommitOrLog(batch);
  for (size_t i = 0; i < commands.size();) {
    const Status ids = ids_->EnsureIds();
    Transaction transaction(core_);
    Effects* effects = transaction.effects();
    for (; i < commands.size() && effects->created.size() < kMaxCreated; ++i) {
      int32_t& result = (*results)[first + i];
      if (result == 0) result = ids.ok() ? Fill(*commands[i], effects) : -ids.error();
    }
  }
  RemoveRefused(batch);
  for (const MetadataBatch::PresenceChange& change : batch.add_presence) {
    durability_->EraseStray(change.object);
  }
}

// The fills of an instance that was ended after they had been recorded do not count: the next
// daemon must not believe the records.
void DevicePort::RemoveRefused(const MetadataBatch& recorded) {
  MetadataBatch batch;
  {
    MutexLock lock(&core_->mu);
    for (const MetadataBatch::PresenceChange& change : recorded.add_presence) {
      const Object* object = core_->engine.Find(change.object);
      if (object != nullptr && !object->presence.Covers(change.range)) {
        batch.remove_presence.push_back(change);
      }
    }
  }
  writer_->CommitOrLog(batch);
}

int32_t DevicePort::Fill(const wire::Command& command, Effects* effects) {
  const auto* filled = std::get_if<wire::FilledCommand>(&command);
  if (filled == nullptr) return core_->engine.Cread(std::get<wire::CreadCommand>(command), effects);
  Object* object = core_->engine.FindLive(filled->object_id);
  if (object == nullptr) return -EINVAL;  // Dropped meanwhile.
  core_->engine.Fill(object, filled->range, effects);
  return 0;
}

// The record is on disk before the fetcher gets the result 0, or the fetcher gets the error.
Status DevicePort::RecordFirst(const wire::Command& command) {
  const auto* attr = std::get_if<wire::AttrCommand>(&command);
  const auto* verity = std::get_if<wire::VerityCommand>(&command);
  if (attr == nullptr && verity == nullptr) return Status();
  MetadataBatch batch;
  {
    MutexLock lock(&core_->mu);
    const Object* object =
        core_->engine.FindLive(attr != nullptr ? attr->object_id : verity->object_id);
    // Of a new object there is no record before its copen.
    if (object == nullptr || !object->size_known) return Status();
    if (verity != nullptr && object->digest) return Status();
    ObjectRecord record = RecordOf(*object);
    if (attr != nullptr) record.attr = attr->attr;
    if (verity != nullptr) record.verity = verity->digest;
    batch.put_objects.push_back(std::move(record));
  }
  return store_->Commit(batch, Sync::kNo);
}

int32_t DevicePort::ExecuteOne(const wire::Command& command) {
  if (const auto* copen = std::get_if<wire::CopenCommand>(&command)) return ExecuteCopen(*copen);
  if (const auto* count = std::get_if<wire::CountCommand>(&command)) {
    return fetcher_totals_.Take(*count);  // Without the engine's lock.
  }
  if (const Status kept = RecordFirst(command); !kept.ok()) {
    log_->Error("what the fetcher says of an object cannot be kept: " + kept.message());
    return -kept.error();
  }
  Transaction transaction(core_);
  Effects* effects = transaction.effects();
  if (const auto* attr = std::get_if<wire::AttrCommand>(&command)) {
    return core_->engine.SetAttr(*attr, effects);
  }
  if (const auto* verity = std::get_if<wire::VerityCommand>(&command)) {
    return core_->engine.SetVerity(*verity, effects);
  }
  if (const auto* facts = std::get_if<wire::FactsCommand>(&command)) {
    return core_->engine.SetFacts(*facts, effects);
  }
  if (const auto* cause = std::get_if<wire::CauseCommand>(&command)) {
    return core_->engine.SetCause(*cause);
  }
  if (const auto* close = std::get_if<wire::CloseCommand>(&command)) {
    return core_->engine.CloseInstance(close->object_id, effects);
  }
  if (const auto* full = std::get_if<wire::FullCommand>(&command)) {
    return core_->engine.NoteFull(*full, effects);
  }
  if (std::holds_alternative<wire::RestoreCommand>(command)) return core_->engine.Restore(effects);
  return -EOPNOTSUPP;
}

Status DevicePort::CreateObject(const ObjectRecord& fresh, const UniqueFd& file,
                                wire::CopenCommand* command) {
  if (ftruncate(file.get(), command->size) != 0) {
    return Status::FromErrno(errno, "making " + data_.PathOf(fresh.number) + " " +
                                        std::to_string(command->size) + " bytes long");
  }
  FaultPoint(Fault::kDataSized);
  RETURN_IF_ERROR(acquisitions_->Succeed(fresh, command));
  if (command->error != 0) return Status();
  MetadataBatch batch;
  batch.put_objects.push_back(fresh);
  return store_->Commit(batch, Sync::kNo);
}

// A new object's file and record are made before any reply says that it exists.
int32_t DevicePort::ExecuteCopen(wire::CopenCommand command) {
  std::optional<ObjectRecord> fresh;
  std::shared_ptr<const UniqueFd> file;
  bool will_open = false;
  {
    MutexLock lock(&core_->mu);
    const Request* request = core_->engine.FindOpen(command.msg_id);
    if (request == nullptr) return -EINVAL;
    const Object* object = core_->engine.Find(request->object);
    file = object->file;
    // What the engine will refuse must not be found by name for a moment.
    will_open = object->live_id.has_value() &&
                static_cast<uint64_t>(command.size) <= PresenceMap::kMaxObjectSize;
    if (!object->size_known) {
      fresh = RecordOf(*object);
      fresh->size_bytes = static_cast<uint64_t>(command.size);
      fresh->stale = false;
    }
  }
  std::string cause;
  if (fresh && will_open && command.error == 0 && command.size >= 0) {
    const Status created = CreateObject(*fresh, *file, &command);
    if (!created.ok()) {
      command.size = -created.error();
      cause = created.message();
    }
  }
  GuardedEngine::Work work;
  int32_t result;
  {
    // Held so that no load comes between the object's end and that of its records.
    MutexLock load_lock(&catalogue_->load_mu);
    bool opened = true;
    {
      Transaction transaction(core_, &work);
      if (!cause.empty()) (void)core_->engine.SetCause({command.msg_id, cause});
      result = core_->engine.Copen(command, transaction.effects());
      if (fresh) opened = core_->engine.Find(fresh->number) != nullptr;
    }
    if (!opened) {
      const Status status = catalogue_->EraseObject(*fresh);
      if (!status.ok()) LOG(ERROR) << "cleaning up after a refused OPEN: " << status.message();
    }
  }
  core_->Run(std::move(work));
  // The fetcher's answer was right, but the object is not open, which the fetcher must learn.
  return cause.empty() ? result : static_cast<int32_t>(command.size);
}

int32_t DevicePort::Through(const wire::ThroughCommand& command, UniqueFd bytes) {
  const Status ids = ids_->EnsureIds();
  if (!ids.ok()) return -ids.error();
  std::shared_ptr<const ObjectVerity> verity;
  {
    MutexLock lock(&core_->mu);
    if (!core_->engine.AwaitsThrough(command)) return -EINVAL;
    verity = core_->engine.FindLive(command.object_id)->verity;
  }
  if (!IsSealedWith(bytes, command.range)) return -EINVAL;
  // Checked once, as it is sealed.
  if (verity != nullptr && !verification_->IsRight(*verity, bytes, command.range)) return -EINVAL;
  Transaction transaction(core_);
  return core_->engine.Through(command, std::make_shared<const UniqueFd>(std::move(bytes)),
                               transaction.effects());
}

}  // namespace cachecore
