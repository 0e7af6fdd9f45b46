// PartUses: when each part of an object was last used.
//
// Model    an object is a row of parts of 4 MiB, which lie in the leaves of its presence.  A part's
//          time is that of the last read of present bytes, or fill, that touched it, in this life
//          of the daemon or, as records say, in an earlier one.
// Units    bytes from the start of the object; times by Clock::Now(), negative before its zero.
// Threads  thread-compatible; guarded by GuardedEngine::mu.
// Cost     Note: O(log leaves + parts that the range touches); allocates with the first use of a
//          leaf alone.  Memory: 320 bytes for each leaf of 128 MiB that was used, wherever it is.
// Crash    what was noted since TakeChanged is lost.  A record has seconds: the order within one is
//          lost with the daemon.
// See      docs/design.md "Culling".

#ifndef CACHECORE_ENGINE_PART_USES_H_
#define CACHECORE_ENGINE_PART_USES_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "cachecore/base/byte_range.h"
#include "cachecore/base/clock.h"
#include "cachecore/values/use_record.h"

namespace cachecore {

class PartUses {
 public:
  static constexpr uint64_t kPartBytes = UseRecord::kPartBytes;
  static constexpr size_t kPartsOfLeaf = UseRecord::kParts;

  void Note(ByteRange range, Duration now) {
    if (range.empty()) return;
    const uint64_t end = (range.end - 1) / kPartBytes + 1;
    for (uint64_t part = range.begin / kPartBytes; part < end;) {
      Leaf& leaf = leaves_[static_cast<uint32_t>(part / kPartsOfLeaf)];
      leaf.changed = true;
      do {
        leaf.times[part % kPartsOfLeaf] = now;
      } while (++part < end && part % kPartsOfLeaf != 0);
    }
  }
  Duration LastUse(uint64_t part) const;
  // Of any part.
  Duration Latest() const;

  // What an earlier life has left.  `file_used`: when the data file was used, seconds since 1970,
  // for what the records do not say.
  void Restore(const std::vector<UseRecord>& records, uint64_t file_used, Duration now);
  // So that a hit need not allocate for it.
  void MakeLeaf(uint64_t at) { leaves_[static_cast<uint32_t>(at / PresenceLeaf::kBytes)]; }
  // What is to be recorded: the leaves with a use since the last call.
  std::vector<UseRecord> TakeChanged(ObjectNumber object, Duration now);

 private:
  static constexpr Duration kNever = Duration::min();
  struct Leaf {
    Leaf() { times.fill(kNever); }
    std::array<Duration, kPartsOfLeaf> times;
    bool changed = false;
  };

  std::map<uint32_t, Leaf> leaves_;
  Duration earlier_{0};  // Of a part without a time.
};

}  // namespace cachecore

#endif  // CACHECORE_ENGINE_PART_USES_H_
