#include "cachecore/engine/part_uses.h"

#include <algorithm>

namespace cachecore {
namespace {

// A clock that was set back makes nothing younger than now.
Duration TimeOf(uint64_t seconds, Duration now, uint64_t wall) {
  return now - std::chrono::seconds(wall - std::min(wall, seconds));
}

}  // namespace

Duration PartUses::LastUse(uint64_t part) const {
  const auto leaf = leaves_.find(static_cast<uint32_t>(part / kPartsOfLeaf));
  const Duration used = leaf == leaves_.end() ? kNever : leaf->second.times[part % kPartsOfLeaf];
  return used == kNever ? earlier_ : used;
}

Duration PartUses::Latest() const {
  Duration latest = kNever;
  for (const auto& [index, leaf] : leaves_) {
    latest = std::max(latest, *std::max_element(leaf.times.begin(), leaf.times.end()));
  }
  return latest == kNever ? earlier_ : latest;
}

void PartUses::Restore(const std::vector<UseRecord>& records, uint64_t file_used, Duration now) {
  const uint64_t wall = WallSeconds();
  earlier_ = TimeOf(file_used, now, wall);
  for (const UseRecord& record : records) {
    Leaf& leaf = leaves_[record.leaf];
    for (size_t part = 0; part < kPartsOfLeaf; ++part) {
      const uint32_t seconds = record.seconds[part];
      if (seconds != 0) leaf.times[part] = TimeOf(seconds, now, wall);
    }
  }
}

std::vector<UseRecord> PartUses::TakeChanged(ObjectNumber object, Duration now) {
  const auto wall = static_cast<int64_t>(WallSeconds());
  std::vector<UseRecord> records;
  for (auto& [index, leaf] : leaves_) {
    if (!leaf.changed) continue;
    leaf.changed = false;
    UseRecord& record = records.emplace_back();
    record.object = object;
    record.leaf = index;
    for (size_t part = 0; part < kPartsOfLeaf; ++part) {
      if (leaf.times[part] == kNever) continue;
      const auto age = std::chrono::duration_cast<std::chrono::seconds>(now - leaf.times[part]);
      record.seconds[part] =
          static_cast<uint32_t>(std::clamp<int64_t>(wall - age.count(), 1, UINT32_MAX));
    }
  }
  return records;
}

}  // namespace cachecore
