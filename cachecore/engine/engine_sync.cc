// Engine's ranges that are being synced, or culled.

#include <glog/logging.h>

#include <algorithm>
#include <utility>

#include "cachecore/engine/engine.h"

namespace cachecore {
namespace {

std::vector<ByteRange> Coalesced(std::vector<ByteRange> ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](ByteRange a, ByteRange b) { return a.begin < b.begin; });
  std::vector<ByteRange> merged;
  for (const ByteRange range : ranges) {
    if (!merged.empty() && range.begin <= merged.back().end) {
      merged.back().end = std::max(merged.back().end, range.end);
    } else {
      merged.push_back(range);
    }
  }
  return merged;
}

// `ranges` less `taken`.
std::vector<ByteRange> Without(const std::vector<ByteRange>& ranges, ByteRange taken) {
  std::vector<ByteRange> left;
  for (const ByteRange one : ranges) {
    for (const ByteRange part : {ByteRange{one.begin, std::min(one.end, taken.begin)},
                                 ByteRange{std::max(one.begin, taken.end), one.end}}) {
      if (!part.empty()) left.push_back(part);
    }
  }
  return left;
}

// What of `range` is present, in order.
std::vector<ByteRange> PresentIn(const Object& object, ByteRange range) {
  std::vector<ByteRange> parts;
  for (ByteRange part{range.begin, range.begin}; part.end < range.end;) {
    part.begin = object.presence.FirstPresent({part.end, range.end});
    part.end =
        part.begin == range.end ? range.end : object.presence.FirstMissing({part.begin, range.end});
    if (!part.empty()) parts.push_back(part);
  }
  return parts;
}

}  // namespace

std::vector<ByteRange> Engine::BeginSync(Object* object) {
  CHECK(object->syncing.empty());
  object->syncing = Coalesced(std::exchange(object->unsynced, {}));
  object->unsynced_bytes = 0;
  return object->syncing;
}

std::vector<ByteRange> Engine::Synced(const Object& object) const {
  std::vector<ByteRange> synced;
  for (const ByteRange range : object.syncing) {
    for (const ByteRange part : PresentIn(object, range)) synced.push_back(part);
  }
  return synced;
}

void Engine::FinishSync(Object* object, bool again) {
  for (const ByteRange range : std::exchange(object->syncing, {})) {
    if (!again) continue;
    object->unsynced.push_back(range);
    object->unsynced_bytes += range.size();
  }
}

std::vector<ByteRange> Engine::Undurable(const Object& object) const {
  std::vector<ByteRange> ranges = object.syncing;
  ranges.insert(ranges.end(), object.unsynced.begin(), object.unsynced.end());
  if (object.culling) {  // It may be cancelled.
    const std::vector<ByteRange>& culled = object.culling->undurable;
    ranges.insert(ranges.end(), culled.begin(), culled.end());
  }
  return Coalesced(std::move(ranges));
}

void Engine::EndInstance(Object* object, bool tell, Effects* effects) {
  // An instance that is being opened has got no READ yet.
  if (object->state != ObjectState::kOpen) return;
  const ObjectId instance = *object->live_id;
  CHECK_EQ(CloseInstance(instance, effects), 0);
  if (tell) TellClosed(object, instance, effects);
}

bool Engine::BeginCull(Object* object, ByteRange range, std::shared_ptr<const UniqueFd> file) {
  if (object->culling) return false;
  for (const auto& [position, read] : object->waiting) {
    if (read->range.Overlaps(range)) return false;
  }
  auto request = object->in_flight.upper_bound(range.begin);
  if (request != object->in_flight.begin()) --request;
  for (; request != object->in_flight.end() && request->first < range.end; ++request) {
    if (requests_.Find(request->second)->range.Overlaps(range)) return false;
  }
  Culling culling{range, PresentIn(*object, range), {}};
  for (const ByteRange one : Undurable(*object)) {
    if (const ByteRange part = one.Intersect(range); !part.empty()) {
      culling.undurable.push_back(part);
    }
  }
  RemovePresence(object, range);
  object->culling = std::move(culling);
  // A cull that was cancelled has replaced the file, too, and the replies of before may still use it.
  std::erase_if(object->earlier_files, [](const auto& earlier) { return earlier.expired(); });
  object->earlier_files.push_back(object->file);
  object->file = std::move(file);
  return true;
}

void Engine::CancelCull(Object* object, Effects* effects) {
  const Culling culling = *std::exchange(object->culling, std::nullopt);
  for (const ByteRange part : culling.undurable) {
    object->unsynced.push_back(part);
    object->unsynced_bytes += part.size();
  }
  for (const ByteRange part : culling.present) {
    object->presence.Add(part);
    NotePresent(object, part, effects);
  }
  effects->wake_device = true;
}

void Engine::EndCull(Object* object, Effects* effects) {
  for (const ByteRange part : object->culling->present) {
    counters_.bytes_culled += part.size();
    object->NoteCulled(part);
  }
  object->culling.reset();
  effects->wake_device = true;  // For the READs that were held back.
}

void Engine::RemoveWrongPresence(Object* object, ByteRange range) {
  const uint64_t before = object->presence.present_bytes();
  RemovePresence(object, range);
  counters_.bytes_found_wrong += before - object->presence.present_bytes();
}

void Engine::RemovePresence(Object* object, ByteRange range) {
  object->presence.Remove(range);
  // What is absent must not be recorded as durable, nor what takes its place before it is on disk.
  object->unsynced = Without(object->unsynced, range);
  object->syncing = Without(object->syncing, range);
  if (object->culling) {  // Its end must not bring it back.
    object->culling->present = Without(object->culling->present, range);
    object->culling->undurable = Without(object->culling->undurable, range);
  }
  object->unsynced_bytes = 0;
  for (const ByteRange one : object->unsynced) object->unsynced_bytes += one.size();
}

}  // namespace cachecore
