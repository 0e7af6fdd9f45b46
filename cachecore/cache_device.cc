// Cache's half towards the fetcher.

#include <fcntl.h>
#include <glog/logging.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "cachecore/cache.h"
#include "cachecore/fault_point.h"

namespace cachecore {
namespace {

// After so many new READs more ids are seen to: each `filled` and `cread` may have some hundreds of
// holes asked for again, and a packet has thousands of them.
constexpr size_t kMaxCreated = 1024;

}  // namespace

Result<Generation> Cache::Attach() {
  ASSIGN_OR_RETURN(const uint64_t next, store_->Reserve(Counter::kGeneration, 1));
  MutexLock lock(&mu_);
  engine_.Attach(Generation{next});
  attached_ = true;
  refusing_ = false;
  FaultPoint(Fault::kFetcherAttached);
  return Generation{next};
}

void Cache::Detach() {
  Work work;
  {
    MutexLock lock(&mu_);
    attached_ = false;
    refusing_ = options_.fail_on_detach;
    engine_.Detach(options_.fail_on_detach, &work.effects);
    Seal(&work);
  }
  Run(std::move(work));
}

Result<Generation> Cache::Resume() {
  ASSIGN_OR_RETURN(const uint64_t next, store_->Reserve(Counter::kGeneration, 1));
  Work work;
  {
    MutexLock lock(&mu_);
    engine_.Detach(/*fail=*/false, &work.effects);
    engine_.Attach(Generation{next});
    Seal(&work);
  }
  Run(std::move(work));
  FaultPoint(Fault::kFetcherResumed);
  return Generation{next};
}

std::optional<OutgoingMessage> Cache::NextMessage() {
  while (true) {
    const Status ids = EnsureIds();
    if (!ids.ok()) {
      LOG(ERROR) << "nothing can be sent to the fetcher: " << ids.message();
      return std::nullopt;
    }
    Work work;
    std::optional<Delivery> delivery;
    ObjectNumber number;
    {
      MutexLock lock(&mu_);
      delivery = engine_.Select(&work.effects);
      if (delivery && delivery->object != nullptr) number = delivery->object->number;
      Seal(&work);
    }
    const bool more = !work.effects.created.empty();
    Run(std::move(work));
    if (!delivery) {
      if (more) continue;  // Reopens were asked for just now; they go out first.
      return std::nullopt;
    }
    OutgoingMessage outgoing{std::move(delivery->message), UniqueFd()};
    const auto* open = std::get_if<wire::OpenMessage>(&outgoing.message);
    if (open == nullptr) return outgoing;
    Result<UniqueFd> file = PrepareDataFile(number);
    if (file.ok()) {
      outgoing.data_fd = std::move(file).value();
      return outgoing;
    }
    Work failed;
    {
      MutexLock lock(&mu_);
      engine_.DeliveryFailed(open->msg_id, file.status(), &failed.effects);
      Seal(&failed);
    }
    Run(std::move(failed));
  }
}

// The descriptor that a fetcher writes an object through.  A new object gets its (empty) file here.
Result<UniqueFd> Cache::PrepareDataFile(ObjectNumber number) {
  {
    MutexLock lock(&mu_);
    const Object* object = engine_.Find(number);
    if (object == nullptr) return Status(ESTALE, "the object was dropped");
    if (object->file != nullptr) return data_.OpenForFetcher(number);
  }
  Result<UniqueFd> created = data_.Create(number, 0);
  if (created.status().error() == EMFILE || created.status().error() == ENFILE) {
    MakeRoom(0);
    created = data_.Create(number, 0);
  }
  ASSIGN_OR_RETURN(UniqueFd file, std::move(created));
  RETURN_IF_ERROR(PassFaultPoint(Fault::kDataCreated));
  {
    MutexLock lock(&mu_);
    Object* object = engine_.Find(number);
    if (object == nullptr) return Status(ESTALE, "the object was dropped");
    object->file = std::make_shared<const UniqueFd>(std::move(file));
  }
  return data_.OpenForFetcher(number);
}

std::vector<int32_t> Cache::Execute(const std::vector<Result<wire::Command>>& commands) {
  std::vector<int32_t> results;
  std::vector<const wire::Command*> fills;
  const auto flush = [&] {
    if (!fills.empty()) ExecuteFills(fills, &results);
    fills.clear();
  };
  for (const Result<wire::Command>& command : commands) {
    if (command.ok() && (std::holds_alternative<wire::FilledCommand>(*command) ||
                         std::holds_alternative<wire::CreadCommand>(*command))) {
      fills.push_back(&*command);
      continue;
    }
    flush();
    if (const Status ids = command.ok() ? EnsureIds() : command.status(); ids.ok()) {
      results.push_back(ExecuteOne(*command));
    } else {
      results.push_back(-ids.error());
    }
  }
  flush();
  return results;
}

// A run of `filled` and `cread` shares one write to the store, which comes before any of them
// counts.
void Cache::ExecuteFills(const std::vector<const wire::Command*>& commands,
                         std::vector<int32_t>* results) {
  const size_t first = results->size();
  MetadataBatch batch;
  {
    MutexLock lock(&mu_);
    for (const wire::Command* command : commands) {
      int32_t result = 0;
      if (const auto* filled = std::get_if<wire::FilledCommand>(command)) {
        const Object* object = engine_.FindLive(filled->object_id);
        if (object == nullptr || !object->size_known || filled->range.end > object->size_bytes) {
          result = -EINVAL;
        } else {
          const ByteRange whole = object->presence.RoundInward(filled->range);
          if (!whole.empty() && !object->presence.Covers(whole)) {
            batch.add_presence.push_back({object->number, whole, Presence::kThisBoot});
          }
        }
      }
      results->push_back(result);
    }
  }
  CommitOrLog(batch);
  for (size_t i = 0; i < commands.size();) {
    const Status ids = EnsureIds();
    Work work;
    {
      MutexLock lock(&mu_);
      for (; i < commands.size() && work.effects.created.size() < kMaxCreated; ++i) {
        int32_t& result = (*results)[first + i];
        if (result == 0) result = ids.ok() ? Fill(*commands[i], &work.effects) : -ids.error();
      }
      Seal(&work);
    }
    Run(std::move(work));
  }
  for (const MetadataBatch::PresenceChange& change : batch.add_presence) EraseStray(change.object);
}

int32_t Cache::Fill(const wire::Command& command, Effects* effects) {
  const auto* filled = std::get_if<wire::FilledCommand>(&command);
  if (filled == nullptr) return engine_.Cread(std::get<wire::CreadCommand>(command), effects);
  Object* object = engine_.FindLive(filled->object_id);
  if (object == nullptr) return -EINVAL;  // Dropped meanwhile.
  engine_.Fill(object, filled->range, effects);
  return 0;
}

// What a fetcher is told that we have kept is on disk by then, or it is told that it is not.
Status Cache::RecordFirst(const wire::Command& command) {
  const auto* attr = std::get_if<wire::AttrCommand>(&command);
  const auto* verity = std::get_if<wire::VerityCommand>(&command);
  if (attr == nullptr && verity == nullptr) return Status();
  MetadataBatch batch;
  {
    MutexLock lock(&mu_);
    const Object* object =
        engine_.FindLive(attr != nullptr ? attr->object_id : verity->object_id);
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

int32_t Cache::ExecuteOne(const wire::Command& command) {
  if (const auto* copen = std::get_if<wire::CopenCommand>(&command)) return ExecuteCopen(*copen);
  if (const Status kept = RecordFirst(command); !kept.ok()) {
    log_.Error("what the fetcher says of an object cannot be kept: " + kept.message());
    return -kept.error();
  }
  Work work;
  int32_t result = -EOPNOTSUPP;
  {
    MutexLock lock(&mu_);
    if (const auto* attr = std::get_if<wire::AttrCommand>(&command)) {
      result = engine_.SetAttr(*attr, &work.effects);
    } else if (const auto* verity = std::get_if<wire::VerityCommand>(&command)) {
      result = engine_.SetVerity(*verity, &work.effects);
    } else if (const auto* cause = std::get_if<wire::CauseCommand>(&command)) {
      result = engine_.SetCause(*cause);
    } else if (const auto* close = std::get_if<wire::CloseCommand>(&command)) {
      result = engine_.CloseInstance(close->object_id, &work.effects);
    } else if (std::holds_alternative<wire::RestoreCommand>(command)) {
      result = engine_.Restore(&work.effects);
    }
    Seal(&work);
  }
  Run(std::move(work));
  return result;
}

// A new object's file and record are made before anybody is told that it exists.
int32_t Cache::ExecuteCopen(wire::CopenCommand command) {
  std::optional<ObjectRecord> fresh;
  std::shared_ptr<const UniqueFd> file;
  bool will_open = false;
  {
    MutexLock lock(&mu_);
    const Request* request = engine_.FindOpen(command.msg_id);
    if (request == nullptr) return -EINVAL;
    const Object* object = engine_.Find(request->object);
    file = object->file;
    // What the engine will refuse must not be found by name for a moment.
    will_open = object->live_id.has_value() &&
                static_cast<uint64_t>(command.size) <= PresenceMap::kMaxObjectSize;
    if (!object->size_known) {
      fresh = ObjectRecord{
          object->number, object->volume, object->cookie_key, static_cast<uint64_t>(command.size),
          false,          object->attr,   object->digest};
    }
  }
  std::string cause;
  if (fresh && will_open && command.error == 0 && command.size >= 0) {
    Status status;
    if (ftruncate(file->get(), command.size) != 0) {
      status = Status::FromErrno(errno, "making " + data_.PathOf(fresh->number) + " " +
                                            std::to_string(command.size) + " bytes long");
    } else {
      FaultPoint(Fault::kDataSized);
      MetadataBatch batch;
      batch.put_objects.push_back(*fresh);
      status = store_->Commit(batch, Sync::kNo);
    }
    if (!status.ok()) {
      command.size = -status.error();
      cause = status.message();
    }
  }
  Work work;
  int32_t result;
  {
    MutexLock load_lock(&load_mu_);  // Nobody loads it between its end and that of its records.
    bool opened = true;
    {
      MutexLock lock(&mu_);
      if (!cause.empty()) (void)engine_.SetCause({command.msg_id, cause});
      result = engine_.Copen(command, &work.effects);
      if (fresh) opened = engine_.Find(fresh->number) != nullptr;
      Seal(&work);
    }
    if (!opened) {
      const Status status = Forget(*fresh);
      if (!status.ok()) LOG(ERROR) << "cleaning up after a refused OPEN: " << status.message();
    }
  }
  Run(std::move(work));
  // The fetcher's answer was right, but it is not open: the fetcher must not believe that it is.
  return cause.empty() ? result : static_cast<int32_t>(command.size);
}

}  // namespace cachecore
