// PresenceMap: which bytes of one object are in its local data file.
//
// Model    a set of 4 KiB blocks, kept as leaves of 128 MiB (32,768 blocks).  A leaf is absent (no
//          block), full (all 32,768 blocks: no bitmap) or a bitmap of 4 KiB.  Ranges that come in
//          are rounded inward to whole blocks, except that the block at the object's end counts as
//          whole when it is filled up to the end: a partly written block is never present.
// Units    bytes from the start of the object.
// Errors   ranges past the object's end are clipped.  MergeLeaf: EBADMSG for bytes that are not a
//          leaf or that mark blocks past the object's end; the map is then unchanged.  An object
//          larger than kMaxObjectSize is a programming error and CHECK-fails.
// Threads  thread-compatible; guarded by GuardedEngine::mu.  Never blocks, no I/O, no callbacks.
// Cost     Add, Covers, FirstMissing: O(log leaves + blocks of the window / 64).  Memory: at most
//          34 KiB per begun GiB of object, whatever the fragmentation (the last leaf, when the
//          object ends inside it, stays a bitmap even when nothing is missing).
// Crash    memory only; rebuilt from the metadata store's presence records.
// See      docs/design.md "Presence"; the naive model in
//          tests/cachecore/values/presence_map_test.cc.

#ifndef CACHECORE_VALUES_PRESENCE_MAP_H_
#define CACHECORE_VALUES_PRESENCE_MAP_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "cachecore/base/byte_range.h"
#include "cachecore/base/status.h"
#include "cachecore/values/presence_leaf.h"

namespace cachecore {

class PresenceMap {
 public:
  // Leaf numbers have 32 bits.
  static constexpr uint64_t kMaxObjectSize = (uint64_t{1} << 32) * PresenceLeaf::kBytes;

  explicit PresenceMap(uint64_t size_bytes);

  uint64_t size_bytes() const { return size_bytes_; }

  // Marks the whole blocks of `range` present and returns them: the range rounded inward, empty
  // when `range` holds no whole block.
  ByteRange Add(ByteRange range);

  // Marks every block that `range` touches absent.
  void Remove(ByteRange range);

  // The range that Add would mark: rounded inward, clipped to the object.
  ByteRange RoundInward(ByteRange range) const;

  // True iff every byte of `range`, clipped to the object, is present.
  bool Covers(ByteRange range) const;
  // The first byte of `window` that is absent, or window.end when there is none.  `window` is
  // clipped to the object first.
  uint64_t FirstMissing(ByteRange window) const;
  // The first byte of `window` that is present, or window.end (clipped) when there is none.
  uint64_t FirstPresent(ByteRange window) const;
  // The absent parts of `window`, ascending, block aligned within it.  Empty iff Covers(window).
  std::vector<ByteRange> Gaps(ByteRange window) const;

  uint64_t present_bytes() const;  // The last block counts up to the object's end.
  bool complete() const { return present_bytes() == size_bytes_; }
  size_t memory_bytes() const;

  // Adds one persisted leaf (see presence_leaf.h).
  Status MergeLeaf(uint32_t leaf_index, std::string_view encoded);

 private:
  uint64_t BlockCount() const;
  uint32_t BlocksInLeaf(uint32_t leaf_index) const;

  uint64_t size_bytes_;
  uint64_t present_blocks_ = 0;
  bool last_block_present_ = false;
  std::map<uint32_t, PresenceLeaf> leaves_;  // Absent leaves have no entry.
};

}  // namespace cachecore

#endif  // CACHECORE_VALUES_PRESENCE_MAP_H_
