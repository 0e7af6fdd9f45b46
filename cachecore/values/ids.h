// The numbers that name things, each its own type so that one is never passed for another.
//
// Model    ObjectNumber names a volume or an object for ever: it is persisted, never reused, and is
//          the FUSE node id.  ObjectId names one open instance of an object towards one fetcher
//          (the kernel's object_id).  MsgId names one request (the kernel's msg_id; 0 is a valid
//          id).  Generation counts fetcher attachments over the life of the cache directory.

#ifndef CACHECORE_VALUES_IDS_H_
#define CACHECORE_VALUES_IDS_H_

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace cachecore {

template <typename Tag, typename Int>
struct Id {
  Int value = 0;
  friend auto operator<=>(const Id&, const Id&) = default;
};

using ObjectNumber = Id<struct ObjectNumberTag, uint64_t>;
using ObjectId = Id<struct ObjectIdTag, uint32_t>;
using MsgId = Id<struct MsgIdTag, uint32_t>;
using Generation = Id<struct GenerationTag, uint64_t>;

// Object numbers below this are the FUSE server's own nodes (1 is the root).
inline constexpr ObjectNumber kFirstObjectNumber{16};

}  // namespace cachecore

template <typename Tag, typename Int>
struct std::hash<cachecore::Id<Tag, Int>> {
  size_t operator()(const cachecore::Id<Tag, Int>& id) const noexcept {
    return std::hash<Int>()(id.value);
  }
};

#endif  // CACHECORE_VALUES_IDS_H_
