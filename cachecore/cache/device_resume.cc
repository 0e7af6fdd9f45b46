// DevicePort's part in a device that goes on under the next daemon: what its program was given is put back.

#include <glog/logging.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "cachecore/cache/device_port.h"

namespace cachecore {

Result<Generation> DevicePort::ResumeDevice(const std::vector<KeptObject>& objects) {
  ASSIGN_OR_RETURN(const Generation generation, Attach());
  for (const KeptObject& kept : objects) {
    // One object that cannot be had must not keep the others from going on: what its program says of
    // it is refused, and its readers have it opened anew.
    const Status status = ResumeObject(kept);
    LOG_IF(ERROR, !status.ok()) << "what the cachefiles device's program has of object "
                                << kept.number.value << " does not go on: " << status.message();
  }
  return generation;
}

Status DevicePort::ResumeObject(const KeptObject& kept) {
  RETURN_IF_ERROR(ids_->EnsureIds());
  Status loaded = catalogue_->EnsureLoaded(kept.number);
  const bool has_open = std::ranges::any_of(kept.requests, [](const KeptRequest& request) {
    return request.opcode == wire::Opcode::kOpen;
  });
  if (loaded.error() == ESTALE && has_open) loaded = MakeUnknownAgain(kept);
  if (loaded.error() == ESTALE) {
    Transaction transaction(core_);
    if (kept.live) core_->engine.ResumeGone(kept.number, *kept.live, transaction.effects());
    return Status();
  }
  RETURN_IF_ERROR(loaded);
  Transaction transaction(core_);
  Object* object = core_->engine.Find(kept.number);
  if (object == nullptr) return Status(ESTALE, "it has left memory");
  // Of an object that was refused nothing is asked any more.
  std::vector<KeptRequest> requests = kept.requests;
  std::erase_if(requests, [object](const KeptRequest& request) {
    return request.opcode == wire::Opcode::kRead &&
           (!object->size_known || request.range.end > object->size_bytes);
  });
  core_->engine.Resume(object, kept.live, requests, transaction.effects());
  return Status();
}

// An object that only its OPEN knows of.
Status DevicePort::MakeUnknownAgain(const KeptObject& kept) {
  ASSIGN_OR_RETURN(const std::optional<VolumeRecord> volume,
                   catalogue_->FindVolume(kept.volume_key));
  if (!volume) return Status(ESTALE, "its volume is gone");
  auto object = std::make_unique<Object>();
  object->number = kept.number;
  object->volume = volume->number;
  object->volume_key = kept.volume_key;
  object->cookie_key = kept.cookie_key;
  object->succeeds = kept.succeeds;
  object->may_replace = kept.may_replace;
  ASSIGN_OR_RETURN(UniqueFd file, data_.Create(kept.number, 0));
  object->file = std::make_shared<const UniqueFd>(std::move(file));
  MutexLock lock(&core_->mu);
  object->used = core_->engine.tick();
  if (kept.succeeds) {
    core_->names.SetSuccessor(*kept.succeeds, kept.number);
  } else {
    core_->names.Set(volume->number, kept.cookie_key, kept.number);
  }
  core_->engine.AddObject(std::move(object));
  return Status();
}

std::vector<MsgId> DevicePort::TakeEnded() {
  MutexLock lock(&core_->mu);
  return core_->engine.TakeEnded();
}

bool DevicePort::IsLive(ObjectId id) {
  MutexLock lock(&core_->mu);
  return core_->engine.FindLive(id) != nullptr;
}

}  // namespace cachecore
