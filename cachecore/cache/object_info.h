// ObjectInfo: what the cache reports of one object.
//
// Model    a copy that is taken under the engine's lock.
// Units    bytes.
// Threads  a value.

#ifndef CACHECORE_CACHE_OBJECT_INFO_H_
#define CACHECORE_CACHE_OBJECT_INFO_H_

#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>

#include "cachecore/base/status.h"
#include "cachecore/engine/object.h"

namespace cachecore {

struct ObjectInfo {
  ObjectNumber number;
  ObjectNumber volume;
  std::string volume_key;
  std::string cookie_key;
  uint64_t size_bytes = 0;
  uint64_t present_bytes = 0;
  ObjectState state = ObjectState::kClose;
  bool stale = false;
  std::string last_error;
  std::optional<Digest> verity = std::nullopt;
  std::optional<ObjectFacts> facts = std::nullopt;
  bool full = false;         // Its data file takes no writes: reads are served through.
  bool is_acquired = false;  // An acquisition waits for its OPEN.
};

inline ObjectInfo InfoOf(const Object& object) {
  return {object.number,
          object.volume,
          object.volume_key,
          object.cookie_key,
          object.size_bytes,
          object.presence.present_bytes(),
          object.state,
          object.stale,
          object.last_error,
          object.digest,
          object.facts,
          object.full,
          !object.acquires.empty()};
}

inline Status ObjectIsGone(ObjectNumber number) {
  return Status(ESTALE, "object " + std::to_string(number.value) + " is gone");
}

}  // namespace cachecore

#endif  // CACHECORE_CACHE_OBJECT_INFO_H_
