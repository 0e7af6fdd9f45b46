// ByteRange: a half-open range of bytes [begin, end) of one object.
//
// Units    bytes from the start of the object.
// Model    begin <= end; an empty range has no position that matters.

#ifndef CACHECORE_BASE_BYTE_RANGE_H_
#define CACHECORE_BASE_BYTE_RANGE_H_

#include <algorithm>
#include <cstdint>
#include <string>

namespace cachecore {

struct ByteRange {
  uint64_t begin = 0;
  uint64_t end = 0;

  static ByteRange At(uint64_t offset, uint64_t length) { return {offset, offset + length}; }

  uint64_t size() const { return end - begin; }
  bool empty() const { return begin >= end; }
  bool Contains(uint64_t offset) const { return begin <= offset && offset < end; }
  bool Contains(ByteRange other) const { return begin <= other.begin && other.end <= end; }
  bool Overlaps(ByteRange other) const { return begin < other.end && other.begin < end; }
  ByteRange Intersect(ByteRange other) const {
    const uint64_t low = std::max(begin, other.begin);
    return {low, std::max(low, std::min(end, other.end))};
  }
  std::string ToString() const {
    return "[" + std::to_string(begin) + ", " + std::to_string(end) + ")";
  }

  friend bool operator==(ByteRange a, ByteRange b) { return a.begin == b.begin && a.end == b.end; }
};

}  // namespace cachecore

#endif  // CACHECORE_BASE_BYTE_RANGE_H_
