// The Engine's part in a device that goes on under the next daemon.

#include <glog/logging.h>

#include <utility>

#include "cachecore/engine/engine.h"

namespace cachecore {

void Engine::Resume(Object* object, std::optional<ObjectId> live,
                    const std::vector<KeptRequest>& requests, Effects* effects) {
  CHECK(object->in_flight.empty() && !object->open_request && !object->live_id);
  for (const KeptRequest& kept : requests) {
    Request request;
    request.id = kept.id;
    request.opcode = kept.opcode;
    request.object = object->number;
    request.range = kept.range;
    request.created = clock_.Now();
    request.published = true;
    request.delivered = generation_;
    if (kept.opcode == wire::Opcode::kOpen) {
      object->open_request = kept.id;
    } else {
      CHECK(object->size_known && kept.range.end <= object->size_bytes);
      // Its readers ask again, and join it.
      request.background = true;
      // All of it was missing when it was made.
      request.filled_bytes = kept.range.size();
      for (const ByteRange gap : object->presence.Gaps(kept.range)) {
        request.filled_bytes -= gap.size();
      }
      object->in_flight.emplace(kept.range.begin, kept.id);
    }
    requests_.Add(std::move(request));
    if (kept.is_new) requests_.Publish(kept.id);
  }
  const bool is_answered = !object->open_request;
  // One that its copen was refused for, or whose object was forgotten since, is not live.
  if (live && !(is_answered && !object->size_known)) {
    object->live_id = live;
    live_.emplace(*live, object);
  }
  if (object->live_id && is_answered) {
    object->state = ObjectState::kOpen;
  } else if (object->size_known && !is_answered) {
    object->state = ObjectState::kReopening;
  }
  effects->wake_device = true;
}

void Engine::ResumeGone(ObjectNumber number, ObjectId instance, Effects* effects) {
  Request close;
  close.id = take_msg_id_();
  close.opcode = wire::Opcode::kClose;
  close.object = number;
  close.closing = instance;
  close.background = true;
  close.created = clock_.Now();
  effects->created.push_back(close.id);
  requests_.Add(std::move(close));
}

}  // namespace cachecore
