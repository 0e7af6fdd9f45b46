// PresenceLeaf: 32,768 blocks (128 MiB) of one object's presence, in memory and as a RocksDB value.
//
// Model    a set of block indexes below kBlocks.  In memory: empty, full (all kBlocks), or a
//          bitmap. Persisted: a tagged value, either runs (varint pairs) or the raw bitmap,
//          whichever is shorter.  A merge operand is the same encoding, so the union of any
//          operands in any order is the value.
// Errors   Merge: EBADMSG for bytes that are not a leaf; the leaf is then unchanged.
// Threads  thread-compatible.
// Cost     Add, FirstMissing, FirstPresent: O(blocks of the window / 64).  Memory: 4 KiB and a bit
//          for a bitmap, nothing beside the object itself for an empty or full leaf.
// See      docs/format.md "Presence".

#ifndef CACHECORE_VALUES_PRESENCE_LEAF_H_
#define CACHECORE_VALUES_PRESENCE_LEAF_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "cachecore/base/status.h"

namespace cachecore {

inline constexpr uint64_t kBlockSize = 4096;

class PresenceLeaf {
 public:
  static constexpr uint32_t kBlocks = 32768;
  static constexpr uint64_t kBytes = kBlocks * kBlockSize;

  // Marks blocks [begin, end); returns how many were absent before.  REQUIRES: end <= kBlocks.
  uint32_t Add(uint32_t begin, uint32_t end);
  // Marks them absent; returns how many were present before.
  uint32_t Remove(uint32_t begin, uint32_t end);
  // The first absent / present block in [begin, end), or end.  REQUIRES: begin <= end <= kBlocks.
  uint32_t FirstMissing(uint32_t begin, uint32_t end) const;
  uint32_t FirstPresent(uint32_t begin, uint32_t end) const;
  uint32_t count() const { return count_; }
  bool full() const { return count_ == kBlocks; }
  size_t memory_bytes() const;

  std::string Encode() const;
  // Adds every block of `encoded`; *added is how many were absent before.
  Status Merge(std::string_view encoded, uint32_t* added);

  // One run as an operand, without building a leaf.  REQUIRES: begin < end <= kBlocks.
  static std::string EncodeRun(uint32_t begin, uint32_t end);

 private:
  static constexpr uint32_t kWords = kBlocks / 64;
  using Bitmap = std::array<uint64_t, kWords>;

  uint32_t MergeBitmap(std::string_view words);

  uint32_t count_ = 0;            // Blocks present; kBlocks means full and then bits_ is null.
  std::unique_ptr<Bitmap> bits_;  // Null when empty or full.
};

}  // namespace cachecore

#endif  // CACHECORE_VALUES_PRESENCE_LEAF_H_
