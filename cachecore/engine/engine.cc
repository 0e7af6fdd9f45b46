#include "cachecore/engine/engine.h"

#include <glog/logging.h>

#include <algorithm>

namespace cachecore {

Engine::Engine(EngineOptions options, const Clock& clock, std::function<MsgId()> take_msg_id,
               std::function<ObjectId()> take_object_id)
    : options_(options),
      clock_(clock),
      take_msg_id_(std::move(take_msg_id)),
      take_object_id_(std::move(take_object_id)) {}

Object* Engine::AddObject(std::unique_ptr<Object> object) {
  auto [it, inserted] = objects_.emplace(object->number, std::move(object));
  CHECK(inserted);
  return it->second.get();
}

Object* Engine::Find(ObjectNumber number) {
  auto it = objects_.find(number);
  return it == objects_.end() ? nullptr : it->second.get();
}

void Engine::Drop(Object* object, Effects* effects) {
  const Status gone(EIO, object->volume_key + "/" + object->cookie_key + ": dropped");
  FailReads(object, gone, effects);
  FinishAcquires(object, gone, effects);
  Remove(object, effects);
}

void Engine::Evict(Object* object, Effects* effects) {
  CHECK(object->IsIdle() && object->size_known);
  KeepUses(object, effects);
  Remove(object, effects);
}

void Engine::KeepUses(Object* object, Effects* effects) {
  for (const UseRecord& use : object->uses.TakeChanged(object->number, clock_.Now())) {
    effects->uses.push_back(use);
  }
}

void Engine::EndBackground(Object* object, Effects* effects) {
  CHECK(object->waiting.empty() && object->acquires.empty());
  if (!object->size_known) {
    Remove(object, effects);
    return;
  }
  while (!object->in_flight.empty()) {
    EndRequest(requests_.Find(object->in_flight.begin()->second), effects);
  }
}

// REQUIRES: no read and no acquisition waits for it.
void Engine::Remove(Object* object, Effects* effects) {
  // Also while it is opening it: what it brings would be refused.
  const bool tell_fetcher = object->live_id.has_value();
  const ObjectId instance = object->live_id.value_or(ObjectId{});
  Apply(object, ObjectEvent::kDropped);
  if (object->open_request) EndRequest(requests_.Find(*object->open_request), effects);
  while (!object->in_flight.empty()) {
    EndRequest(requests_.Find(object->in_flight.begin()->second), effects);
  }
  if (object->live_id) live_.erase(*object->live_id);
  if (tell_fetcher) TellClosed(object, instance, effects);
  effects->forgotten.push_back({object->number, object->volume, object->cookie_key});
  objects_.erase(object->number);
}

void Engine::TellClosed(Object* object, ObjectId instance, Effects* effects) {
  Request* close = NewRequest(object, wire::Opcode::kClose, {}, effects);
  close->closing = instance;
  close->background = true;
}

uint64_t Engine::Acquire(Object* object, Duration deadline, AcquireDone done, Effects* effects) {
  CHECK(!object->size_known || !object->live_id);
  object->acquires.push_back({++acquires_, deadline, std::move(done)});
  if (!object->open_request) {
    object->open_request = NewRequest(object, wire::Opcode::kOpen, {}, effects)->id;
  }
  return acquires_;
}

// The OPEN stays: its answer makes the object known, so that the next look-up need not wait.
bool Engine::WithdrawAcquire(ObjectNumber number, uint64_t serial, const Status& why,
                             Effects* effects) {
  Object* object = Find(number);
  if (object == nullptr) return false;
  const auto it = std::find_if(object->acquires.begin(), object->acquires.end(),
                               [&](const auto& acquire) { return acquire.serial == serial; });
  if (it == object->acquires.end()) return false;
  effects->acquires.emplace_back(std::move(it->done), why);
  object->acquires.erase(it);
  return true;
}

bool Engine::Publish(MsgId id, Effects* effects) {
  if (requests_.Find(id) == nullptr) return false;
  requests_.Publish(id);
  effects->wake_device = true;
  return true;
}

void Engine::Apply(Object* object, ObjectEvent event) {
  const std::optional<ObjectState> next = NextState(object->state, event);
  CHECK(next.has_value()) << "object " << object->number.value << ": " << Name(event) << " in "
                          << Name(object->state);
  object->state = *next;
}

Request* Engine::NewRequest(Object* object, wire::Opcode opcode, ByteRange range,
                            Effects* effects) {
  CHECK(object->state != ObjectState::kDropping || opcode == wire::Opcode::kClose);
  Request request;
  do {  // The wire has 32 bits of it, which wrap.
    request.id = take_msg_id_();
  } while (requests_.Find(request.id) != nullptr);
  request.opcode = opcode;
  request.object = object->number;
  request.range = range;
  request.created = clock_.Now();
  ++counters_.requests;
  effects->created.push_back(request.id);
  return requests_.Add(std::move(request));
}

void Engine::EndRequest(Request* request, Effects* effects) {
  if (request->filled_bytes > 0) {
    history_.AddFetch({request->object, request->range, request->filled_bytes, request->created,
                       clock_.Now() - request->created, request->demanded});
  }
  if (Object* object = Find(request->object); object != nullptr) {
    if (request->opcode == wire::Opcode::kRead) object->in_flight.erase(request->range.begin);
    if (request->opcode == wire::Opcode::kOpen) object->open_request.reset();
  }
  effects->ended.push_back(request->id);
  if (options_.kernel_instances && request->delivered.value != 0) ended_.push_back(request->id);
  requests_.Take(request->id);
}

void Engine::FinishAcquires(Object* object, const Status& status, Effects* effects) {
  for (PendingAcquire& acquire : object->acquires) {
    effects->acquires.emplace_back(std::move(acquire.done), status);
  }
  object->acquires.clear();
  object->used = tick_;  // Its first read comes after this.
}

// Invariant numbers are those of docs/semantics.md "Requests".
void Engine::CheckInvariants() const {
  std::unordered_map<MsgId, uint32_t> shares;
  for (const auto& [number, object] : objects_) {
    CHECK(object->number == number);
    // OPEN means a live id; a live id is known to live_ (X3, X4).
    if (object->state == ObjectState::kOpen) CHECK(object->live_id.has_value());
    if (object->live_id) CHECK(live_.at(*object->live_id) == object.get());
    if (object->state == ObjectState::kReopening) {  // Never without an OPEN on its way (I8).
      CHECK(object->open_request.has_value());
    }
    if (object->open_request) {  // At most one OPEN of an object, and it is in the table (X5).
      CHECK(requests_.all().at(*object->open_request)->opcode == wire::Opcode::kOpen);
    }
    CHECK(object->acquires.empty() || object->open_request.has_value());
    uint64_t end = 0;
    for (const auto& [begin, id] : object->in_flight) {
      const Request& request = *requests_.all().at(id);
      CHECK(request.opcode == wire::Opcode::kRead && request.object == number);
      CHECK(request.range.begin == begin && begin >= end && request.range.end > begin);
      CHECK(request.range.end <= object->size_bytes);
      end = request.range.end;
    }
    for (const auto& [position, read] : object->waiting) {
      CHECK(!read->ended && read->object == object.get() && read->position == position);
      CHECK(object->presence.FirstMissing({position, read->range.end}) == position);
      auto covering = object->in_flight.upper_bound(position);  // No waiter without a request (X1).
      CHECK(covering != object->in_flight.begin());
      const MsgId id = std::prev(covering)->second;
      CHECK(requests_.all().at(id)->range.Contains(position));
      CHECK(std::find(read->requests.begin(), read->requests.end(), id) != read->requests.end());
      for (const MsgId share : read->requests) ++shares[share];
    }
  }
  for (const auto& [id, request] : requests_.all()) {
    if (requests_.IsNew(id)) CHECK(request->published);
    if (request->opcode == wire::Opcode::kClose) continue;
    const auto object = objects_.find(request->object);
    CHECK(object != objects_.end());  // A dropped object's requests are gone with it (I14).
    if (request->opcode == wire::Opcode::kOpen) {
      CHECK(object->second->open_request == id);
      continue;
    }
    CHECK(object->second->in_flight.at(request->range.begin) == id);
    const auto held = shares.find(id);
    CHECK_EQ(request->waiters, held == shares.end() ? 0 : held->second);
    CHECK(request->waiters > 0 || request->background);  // No request without a waiter (X1).
  }
  for (const auto& [id, object] : live_) CHECK(object->live_id == id);
}

}  // namespace cachecore
