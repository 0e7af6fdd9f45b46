// The fetcher's half of Engine: which message goes out next, and what its answers do.

#include <glog/logging.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "cachecore/engine/engine.h"
#include "cachecore/verity/block_hasher.h"

namespace cachecore {
namespace {

// How many requests one `restore` may make: ids are reserved ahead, and not without end.
constexpr size_t kMaxSplit = 4096;
// And one choice of a message, of closed objects to be opened.
constexpr size_t kMaxReopened = 4096;
// Between two tries to open a data file on a disk that takes no writes.
constexpr Duration kHoldOpen = std::chrono::seconds(1);

// Of the message without what capabilities add to it.
size_t MessageSize(const Request& request, const Object* object) {
  constexpr size_t kPayload = 16;  // Of an OPEN before its keys, and of a READ.
  if (request.opcode == wire::Opcode::kClose) return wire::kHeaderSize;
  if (request.opcode == wire::Opcode::kRead) return wire::kHeaderSize + kPayload;
  return wire::kHeaderSize + kPayload + object->volume_key.size() + 1 + object->cookie_key.size();
}

}  // namespace

std::optional<Delivery> Engine::Select(Effects* effects, size_t room, int* failure) {
  Request* request = requests_.Select([&](Request& candidate) {
    Object* object = Find(candidate.object);
    if (candidate.opcode == wire::Opcode::kOpen) return object->open_held_until <= clock_.Now();
    if (candidate.opcode != wire::Opcode::kRead) return true;
    if (object->culling && object->culling->range.Overlaps(candidate.range)) return false;
    if (object->state == ObjectState::kOpen) return true;
    // Choosing a message is what reopens a closed object, as in the kernel; the READ waits for it.
    if (object->state == ObjectState::kClose && effects->created.size() < kMaxReopened) {
      Apply(object, ObjectEvent::kNeeded);
      if (!object->open_request) {
        object->open_request = NewRequest(object, wire::Opcode::kOpen, {}, effects)->id;
      }
    }
    return false;
  });
  if (request == nullptr) return std::nullopt;
  int ignored = 0;
  if (failure == nullptr) failure = &ignored;
  Object* object = Find(request->object);
  if (MessageSize(*request, object) > room) {
    *failure = EMSGSIZE;
    return std::nullopt;
  }
  if (request->opcode == wire::Opcode::kOpen && object->live_id) {
    *failure = EEXIST;
    EndRequest(request, effects);
    Refused(object, EEXIST, "the fetcher was given its OPEN again while it had its file open",
            effects);
    return std::nullopt;
  }
  requests_.MarkDelivered(request, generation_);

  switch (request->opcode) {
    case wire::Opcode::kOpen: {
      Apply(object, ObjectEvent::kDelivered);
      do {  // As with msg_ids; 0 is none.
        object->live_id = take_object_id_();
      } while (object->live_id->value == 0 || live_.contains(*object->live_id));
      live_.emplace(*object->live_id, object);
      wire::OpenMessage open;
      open.msg_id = request->id;
      open.object_id = *object->live_id;
      open.volume_key = object->volume_key;
      open.cookie_key = object->cookie_key;
      open.attr = object->attr;
      open.is_check = object->succeeds.has_value();
      return Delivery{open, object};
    }
    case wire::Opcode::kClose: {
      // A CLOSE ends when the fetcher reads it; it has no answer.
      const wire::CloseMessage close{request->id, request->closing};
      EndRequest(request, effects);
      return Delivery{close, nullptr};
    }
    default:
      return Delivery{
          wire::ReadMessage{request->id, *object->live_id, request->range, request->background},
          object};
  }
}

bool Engine::IsReadable() const {
  return requests_.HasNewLike([this](const Request& request) {
    if (request.opcode == wire::Opcode::kClose) return true;
    const Object& object = *objects_.at(request.object);
    if (request.opcode == wire::Opcode::kOpen) return object.open_held_until <= clock_.Now();
    if (object.culling && object.culling->range.Overlaps(request.range)) return false;
    return object.state != ObjectState::kReopening;
  });
}

void Engine::CloseLive(Object* object) {
  if (!object->live_id) return;
  live_.erase(*object->live_id);
  object->live_id.reset();
  object->full = false;
}

bool Engine::DeliveryFailed(MsgId id, const Status& why, Effects* effects) {
  Request* request = requests_.Find(id);
  if (request == nullptr || request->opcode != wire::Opcode::kOpen) return false;
  Object* object = Find(request->object);
  if (object->size_known && TakesNothing(why.error())) {
    // Its reads wait for the disk as they would for an origin; the OPEN is tried again.
    request->cause = why.message();
    object->open_held_until = clock_.Now() + kHoldOpen;
    wake_at_ = std::min(wake_at_, object->open_held_until);
    CloseLive(object);
    requests_.Publish(id);
    return true;
  }
  EndRequest(request, effects);
  Refused(object, why.error(), why.message(), effects);
  return false;
}

void Engine::SetStale(Object* object, bool stale, Effects* effects) {
  if (object->stale == stale) return;
  object->stale = stale;
  effects->changed.push_back(object->number);
}

// An OPEN has ended without the object being open.
void Engine::Refused(Object* object, int error, const std::string& cause, Effects* effects) {
  CloseLive(object);
  Apply(object, ObjectEvent::kRefused);
  const std::string name = object->volume_key + "/" + object->cookie_key;
  object->last_error = cause;
  FinishAcquires(object, Status(error, cause), effects);
  if (!object->size_known) {  // Nothing is known of it, so nothing can wait on it.
    effects->forgotten.push_back({object->number, object->volume, object->cookie_key});
    objects_.erase(object->number);
    return;
  }
  if (error == ESTALE) SetStale(object, true, effects);
  if (error != ESTALE && ++object->refusals < options_.max_refusals) {
    effects->wake_device = true;  // Its READs are still NEW; the next choice reopens it.
    return;
  }
  object->refusals = 0;
  effects->log.push_back("object " + name + ": EIO to its waiting reads: " + cause);
  FailReads(object, Status(EIO, effects->log.back()), effects);
  // Background READs end too: while they are NEW they would reopen the object again and again.
  while (!object->in_flight.empty()) {
    EndRequest(requests_.Find(object->in_flight.begin()->second), effects);
  }
}

Request* Engine::FindOpen(MsgId id) {
  Request* request = requests_.Find(id);
  // Delivered in this attachment: a request that an earlier fetcher left is not this one's to
  // answer.
  const bool answerable = request != nullptr && request->opcode == wire::Opcode::kOpen &&
                          request->delivered == generation_ && !requests_.IsNew(id);
  return answerable ? request : nullptr;
}

int Engine::Copen(const wire::CopenCommand& command, Effects* effects) {
  Request* request = FindOpen(command.msg_id);
  if (request == nullptr) return -EINVAL;
  Object* object = Find(request->object);
  std::string cause = std::move(request->cause);
  EndRequest(request, effects);

  int error = command.error;
  int answer = -command.error;
  if (error == 0 && command.size < 0) error = static_cast<int>(-command.size);
  if (error == 0 && !object->live_id) {
    error = EBADFD;
    cause = "the fetcher closed it before it had opened it";
  }
  const auto size = static_cast<uint64_t>(command.size);
  if (error == 0 && size > PresenceMap::kMaxObjectSize) {
    error = EFBIG;
    answer = -EFBIG;
    cause = "larger than the " + std::to_string(PresenceMap::kMaxObjectSize) + " bytes we can hold";
  }
  // An object without bytes has nothing that is checked later.
  if (error == 0 && size == 0 && object->digest &&
      *object->digest != BlockHasher::OfThisThread().OfFile(0, {})) {
    error = EBADMSG;
    answer = -EBADMSG;
    cause = "the digest is not that of an empty file, which it is said to be";
  }
  if (error == 0 && object->size_known && size != object->size_bytes) {
    error = ESTALE;
    answer = -ESTALE;
    cause = "changed at its origin: it was " + std::to_string(object->size_bytes) +
            " bytes when it was first opened and is " + std::to_string(size) + " now";
  }
  if (error != 0) {
    if (cause.empty()) cause = Server() + " answered: " + std::strerror(error);
    Refused(object, error, cause, effects);
    return answer;
  }
  if (!object->size_known) {
    object->size_known = true;
    object->size_bytes = size;
    object->presence = PresenceMap(size);
    object->NoteVerity();
  }
  object->refusals = 0;
  object->last_error.clear();
  Apply(object, ObjectEvent::kOpened);
  FinishAcquires(object, Status(), effects);
  effects->wake_device = true;
  return 0;
}

Object* Engine::FindLive(ObjectId id) {
  auto it = live_.find(id);
  return it == live_.end() ? nullptr : it->second;
}

int Engine::Cread(const wire::CreadCommand& command, Effects* effects) {
  Object* object = FindLive(command.object_id);
  Request* request = requests_.Find(command.msg_id);
  if (object == nullptr || request == nullptr || request->opcode != wire::Opcode::kRead ||
      request->object != object->number) {
    return -EINVAL;
  }
  const ByteRange range = request->range;
  const bool progress = request->filled_bytes > 0;
  const std::string cause = std::move(request->cause);
  EndRequest(request, effects);
  if (command.error == 0 && progress) {
    // What is still missing is requested again, as the kernel looks at a hole once more.
    AwaitAgain(object, range, effects);
    return 0;
  }
  if (command.error == ESTALE) SetStale(object, true, effects);
  const std::string name = object->volume_key + "/" + object->cookie_key;
  std::string why = cause;
  if (why.empty()) {
    why = command.error == 0 ? Server() + " completed the range without filling it"
                             : Server() + " answered: " + std::strerror(command.error);
  }
  if (command.error != 0 && object->last_error != why) {  // A failing origin fails many ranges.
    object->last_error = why;
    effects->log.push_back("object " + name + " range " + range.ToString() + ": EIO: " + why);
  }
  FailReadsIn(object, range, Status(EIO, "object " + name + ": " + why), effects);
  return 0;
}

int Engine::CloseInstance(ObjectId id, Effects* effects) {
  Object* object = FindLive(id);
  if (object == nullptr) return -EINVAL;
  CloseLive(object);
  // A delivered OPEN stays to be answered (with EBADFD), and until then the object is REOPENING or
  // new.
  if (object->state == ObjectState::kOpen) Apply(object, ObjectEvent::kClosed);
  if (options_.kernel_instances) return 0;
  // Its READs go to the next instance: this one can no longer answer them.
  for (const auto& [begin, read] : object->in_flight) {
    if (requests_.Find(read)->published) requests_.Publish(read);
  }
  effects->wake_device = true;
  return 0;
}

int Engine::SetCause(const wire::CauseCommand& command) {
  Request* request = requests_.Find(command.msg_id);
  if (request == nullptr) return -EINVAL;
  request->cause = command.text;
  return 0;
}

int Engine::SetAttr(const wire::AttrCommand& command, Effects* effects) {
  Object* object = FindLive(command.object_id);
  if (object == nullptr) return -EINVAL;
  object->attr = command.attr;
  if (object->size_known) effects->changed.push_back(object->number);
  return 0;
}

int Engine::SetVerity(const wire::VerityCommand& command, Effects* effects) {
  Object* object = FindLive(command.object_id);
  if (object == nullptr) return -EINVAL;
  if (object->digest == command.digest) return 0;
  if (object->digest) {
    effects->log.push_back("object " + object->volume_key + "/" + object->cookie_key +
                           ": the fetcher names " + DigestText(command.digest) + ", but it is " +
                           DigestText(*object->digest) + "; refused");
    (void)CloseInstance(command.object_id, effects);  // So that its copen fails too.
    return -EINVAL;
  }
  object->digest = command.digest;
  object->NoteVerity();
  if (object->size_known) effects->changed.push_back(object->number);
  return 0;
}

int Engine::SetFacts(const wire::FactsCommand& command, Effects* effects) {
  Object* object = FindLive(command.object_id);
  if (object == nullptr) return -EINVAL;
  if (object->facts == command.facts) return 0;
  object->facts = command.facts;
  if (object->size_known) effects->changed.push_back(object->number);
  return 0;
}

int Engine::NoteFull(const wire::FullCommand& command, Effects* effects) {
  Object* object = FindLive(command.object_id);
  if (object == nullptr) return -EINVAL;
  object->full = true;
  std::vector<Request*> ahead;
  for (const auto& [begin, id] : object->in_flight) {
    Request* request = requests_.Find(id);
    if (request->waiters == 0) ahead.push_back(request);
  }
  for (Request* request : ahead) EndRequest(request, effects);
  return 0;
}

// A READ that an earlier fetcher has filled in part is replaced by READs for the rest.  Delivered
// whole, what is present would be fetched twice, and would never be complete if fetchers die soon.
void Engine::SplitPartlyFilled(Effects* effects) {
  std::vector<MsgId> partly;
  for (const auto& [id, request] : requests_.all()) {
    if (request->opcode == wire::Opcode::kRead && request->filled_bytes > 0 &&
        request->delivered.value != 0 && request->delivered != generation_) {
      partly.push_back(id);
    }
  }
  const size_t before = effects->created.size();
  for (const MsgId id : partly) {
    if (effects->created.size() - before > kMaxSplit) break;  // The rest is delivered whole.
    Request* request = requests_.Find(id);
    Object* object = Find(request->object);
    const ByteRange range = request->range;
    EndRequest(request, effects);
    AwaitAgain(object, range, effects);
    if (!options_.exact) Prefetch(object, range, effects);
  }
}

int Engine::Restore(Effects* effects) {
  SplitPartlyFilled(effects);
  // An OPEN that this fetcher is answering is not delivered again: the object would get a second
  // live instance.
  requests_.Restore([&](const Request& request) {
    return options_.kernel_instances || request.opcode != wire::Opcode::kOpen ||
           !Find(request.object)->live_id;
  });
  effects->wake_device = true;
  return 0;
}

void Engine::Attach(Generation generation) {
  generation_ = generation;
  attached_at_ = clock_.Now();
  is_attached_ = true;
  is_served_ = true;
  is_refusing_ = false;
}

void Engine::Detach(bool fail, Effects* effects) {
  is_attached_ = false;
  is_served_ = false;
  is_refusing_ = fail;
  for (const auto& [id, request] : requests_.all()) {
    if (request->opcode == wire::Opcode::kRead && request->delivered == generation_) {
      counters_.bytes_in_flight_at_detach += request->range.size();
    }
  }
  for (auto& [number, object] : objects_) {
    if (!object->live_id) continue;
    CloseLive(object.get());
    // With an OPEN on its way REOPENING stands: the OPEN is delivered again after `restore`.
    if (!(object->state == ObjectState::kReopening && object->open_request)) {
      Apply(object.get(), ObjectEvent::kClosed);
    }
  }
  CHECK(live_.empty());
  if (!fail) return;
  const Status gone(EIO, "the fetcher is gone and the detach policy is `fail`");
  std::vector<Object*> unknown;
  for (auto& [number, object] : objects_) {
    FailReads(object.get(), gone, effects);
    FinishAcquires(object.get(), gone, effects);
    while (!object->in_flight.empty()) {
      EndRequest(requests_.Find(object->in_flight.begin()->second), effects);
    }
    if (object->open_request) {
      EndRequest(requests_.Find(*object->open_request), effects);
      Apply(object.get(), ObjectEvent::kRefused);
    }
    if (!object->size_known) unknown.push_back(object.get());
  }
  for (Object* object : unknown) {
    effects->forgotten.push_back({object->number, object->volume, object->cookie_key});
    objects_.erase(object->number);
  }
  while (requests_.size() > 0) EndRequest(requests_.all().begin()->second.get(), effects);
}

}  // namespace cachecore
