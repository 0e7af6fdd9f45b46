// HitCost: reads 4 KiB that are present so many times, for hit_cost.py.
//
//     hit_cost complete|incomplete HITS
//
// Model    one object in a Cache, of which the first 4 MiB are present: all of it, or a part.

#include <glog/logging.h>

#include <cstdlib>
#include <string>

#include "tests/cachecore/cache/cache_rig.h"

namespace {

constexpr uint64_t kPresent = 4 << 20;
constexpr uint64_t kHit = 4096;
constexpr uint64_t kStride = 61;  // In hits; no reader that read-ahead would follow.

}  // namespace

int main(int argc, char** argv) {
  CHECK_EQ(argc, 3) << "usage: hit_cost complete|incomplete HITS";
  const bool is_complete = std::string(argv[1]) == "complete";
  const uint64_t hits = std::strtoull(argv[2], nullptr, 10);
  cachecore::CacheRig rig;
  const auto object = rig.Acquire(is_complete ? kPresent : 2 * kPresent);
  CHECK(object.ok()) << object.status().message();
  CHECK_EQ(rig.Execute(cachecore::wire::FilledCommand{rig.live, {0, kPresent}}), 0);
  for (uint64_t i = 0; i < hits; ++i) {
    const uint64_t place = i * kStride % (kPresent / kHit) * kHit;
    CHECK(rig.IsPresent(object->number, cachecore::ByteRange::At(place, kHit)));
  }
  return 0;
}
