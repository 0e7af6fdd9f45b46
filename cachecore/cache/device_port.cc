#include "cachecore/cache/device_port.h"

#include <glog/logging.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "cachecore/base/fault_point.h"

namespace cachecore {

DevicePort::DevicePort(Options options, const Parts& parts)
    : options_(options),
      store_(parts.store),
      data_(parts.data),
      ids_(parts.ids),
      writer_(parts.writer),
      log_(parts.log),
      core_(parts.core),
      catalogue_(parts.catalogue),
      acquisitions_(parts.acquisitions),
      durability_(parts.durability),
      verification_(parts.verification),
      fetcher_totals_(parts.totals) {}

Result<Generation> DevicePort::Attach() {
  ASSIGN_OR_RETURN(const uint64_t next, store_->Reserve(Counter::kGeneration, 1));
  MutexLock lock(&core_->mu);
  core_->engine.Attach(Generation{next});
  FaultPoint(Fault::kFetcherAttached);
  return Generation{next};
}

void DevicePort::Detach() {
  Transaction transaction(core_);
  core_->engine.Detach(options_.fail_on_detach, transaction.effects());
}

void DevicePort::NoteDeath() {
  MutexLock lock(&core_->mu);
  core_->engine.NoteDeath();
}

Result<Generation> DevicePort::Resume() {
  ASSIGN_OR_RETURN(const uint64_t next, store_->Reserve(Counter::kGeneration, 1));
  {
    Transaction transaction(core_);
    core_->engine.Detach(/*fail=*/false, transaction.effects());
    core_->engine.Attach(Generation{next});
  }
  FaultPoint(Fault::kFetcherResumed);
  return Generation{next};
}

bool DevicePort::HasMessage() {
  MutexLock lock(&core_->mu);
  return core_->engine.IsReadable();
}

bool DevicePort::FailOpen(MsgId id, const Status& why) {
  Transaction transaction(core_);
  return core_->engine.DeliveryFailed(id, why, transaction.effects());
}

Status DevicePort::AddPresence(ObjectNumber number, ByteRange range) {
  RETURN_IF_ERROR(ids_->EnsureIds());
  RETURN_IF_ERROR(catalogue_->EnsureLoaded(number));
  MetadataBatch batch;
  {
    MutexLock lock(&core_->mu);
    const Object* object = core_->engine.Find(number);
    if (object == nullptr || !object->size_known || object->file == nullptr ||
        range.end > object->size_bytes) {
      return Status(EINVAL, "these bytes are not in the object");
    }
    const ByteRange whole = object->presence.RoundInward(range);
    if (whole.empty() || object->presence.Covers(whole)) return Status();
    batch.add_presence.push_back({number, whole, Presence::kThisBoot});
  }
  writer_->CommitOrLog(batch);
  {
    Transaction transaction(core_);
    if (Object* object = core_->engine.Find(number)) {
      core_->engine.Fill(object, range, transaction.effects());
    }
  }
  durability_->EraseStray(number);
  return Status();
}

Result<uint64_t> DevicePort::FindPresence(ObjectId id, uint64_t from, bool is_present) {
  MutexLock lock(&core_->mu);
  const Object* object = core_->engine.FindLive(id);
  if (object == nullptr || !object->size_known) return Status(EINVAL, "no such open object");
  const ByteRange rest{std::min(from, object->size_bytes), object->size_bytes};
  return is_present ? object->presence.FirstPresent(rest) : object->presence.FirstMissing(rest);
}

std::optional<OutgoingMessage> DevicePort::NextMessage(size_t room, int* failure) {
  while (true) {
    const Status ids = ids_->EnsureIds();
    if (!ids.ok()) {
      LOG(ERROR) << "nothing can be sent to the fetcher: " << ids.message();
      return std::nullopt;
    }
    std::optional<Delivery> delivery;
    ObjectNumber number;
    std::optional<ObjectNumber> succeeds;
    bool may_replace = false;
    bool more;
    {
      Transaction transaction(core_);
      delivery = core_->engine.Select(transaction.effects(), room, failure);
      if (delivery && delivery->object != nullptr) {
        number = delivery->object->number;
        succeeds = delivery->object->succeeds;
        may_replace = delivery->object->may_replace;
      }
      more = !transaction.effects()->created.empty();
    }
    if (!delivery) {
      // The caller learns of the failure alone: a message beside it would be lost.
      if (failure != nullptr && *failure != 0) return std::nullopt;
      if (more) continue;  // Reopens were asked for just now; they go out first.
      return std::nullopt;
    }
    OutgoingMessage outgoing{std::move(delivery->message), number, UniqueFd(), succeeds,
                             may_replace};
    const auto* open = std::get_if<wire::OpenMessage>(&outgoing.message);
    if (open == nullptr) return outgoing;
    Result<UniqueFd> file = PrepareDataFile(number);
    if (file.ok()) {
      outgoing.data_fd = std::move(file).value();
      return outgoing;
    }
    const bool is_held = FailOpen(open->msg_id, file.status());
    // As in the kernel the read fails with what the OPEN does.  Nothing reads a dropped object's, and
    // one that is held waits for the disk.
    if (failure != nullptr && !is_held && file.status().error() != ESTALE) {
      *failure = file.status().error();
      return std::nullopt;
    }
  }
}

// The descriptor that a fetcher writes an object through.  A new object gets its (empty) file here.
Result<UniqueFd> DevicePort::PrepareDataFile(ObjectNumber number) {
  bool is_known = false;
  {
    MutexLock lock(&core_->mu);
    const Object* object = core_->engine.Find(number);
    if (object == nullptr) return Status(ESTALE, "the object was dropped");
    if (object->file != nullptr) return data_.OpenForFetcher(number);
    is_known = object->size_known;
  }
  if (is_known) {
    RETURN_IF_ERROR(catalogue_->MakeLostFile(number));
    return data_.OpenForFetcher(number);
  }
  Result<UniqueFd> created = data_.Create(number, 0);
  if (created.status().error() == EMFILE || created.status().error() == ENFILE) {
    catalogue_->MakeRoomFor(0);
    created = data_.Create(number, 0);
  }
  ASSIGN_OR_RETURN(UniqueFd file, std::move(created));
  RETURN_IF_ERROR(PassFaultPoint(Fault::kDataCreated));
  {
    MutexLock lock(&core_->mu);
    Object* object = core_->engine.Find(number);
    if (object == nullptr) return Status(ESTALE, "the object was dropped");
    object->file = std::make_shared<const UniqueFd>(std::move(file));
  }
  return data_.OpenForFetcher(number);
}

}  // namespace cachecore
