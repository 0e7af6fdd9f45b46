#include "host/report/range_set.h"

#include <algorithm>

namespace host {

using cachecore::ByteRange;

uint64_t SizeOf(const Ranges& ranges) {
  uint64_t size = 0;
  for (const ByteRange range : ranges) size += range.size();
  return size;
}

uint64_t SizeIn(const Ranges& ranges, ByteRange window) {
  uint64_t size = 0;
  auto at = std::partition_point(ranges.begin(), ranges.end(),
                                 [window](ByteRange range) { return range.end <= window.begin; });
  for (; at != ranges.end() && at->begin < window.end; ++at) size += at->Intersect(window).size();
  return size;
}

bool Covers(const Ranges& ranges, ByteRange window) {
  return SizeIn(ranges, window) == window.size();
}

Ranges Intersection(const Ranges& a, const Ranges& b) {
  Ranges both;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    const ByteRange part = a[i].Intersect(b[j]);
    if (!part.empty()) both.push_back(part);
    a[i].end < b[j].end ? ++i : ++j;
  }
  return both;
}

}  // namespace host
