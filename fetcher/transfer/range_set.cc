#include "fetcher/transfer/range_set.h"

#include <algorithm>
#include <iterator>

namespace fetcher {

void RangeSet::Add(ByteRange range) {
  if (range.empty()) return;
  auto it = end_by_begin_.upper_bound(range.begin);
  if (it != end_by_begin_.begin() && std::prev(it)->second >= range.begin) --it;
  while (it != end_by_begin_.end() && it->first <= range.end) {
    range.begin = std::min(range.begin, it->first);
    range.end = std::max(range.end, it->second);
    byte_count_ -= it->second - it->first;
    it = end_by_begin_.erase(it);
  }
  end_by_begin_.emplace(range.begin, range.end);
  byte_count_ += range.size();
}

void RangeSet::Remove(ByteRange range) {
  if (range.empty()) return;
  for (const ByteRange part : Within(range)) {
    auto it = std::prev(end_by_begin_.upper_bound(part.begin));
    const ByteRange whole{it->first, it->second};
    end_by_begin_.erase(it);
    if (whole.begin < part.begin) end_by_begin_.emplace(whole.begin, part.begin);
    if (part.end < whole.end) end_by_begin_.emplace(part.end, whole.end);
    byte_count_ -= part.size();
  }
}

std::vector<ByteRange> RangeSet::Within(ByteRange window) const {
  std::vector<ByteRange> parts;
  auto it = end_by_begin_.upper_bound(window.begin);
  if (it != end_by_begin_.begin()) --it;
  for (; it != end_by_begin_.end() && it->first < window.end; ++it) {
    const ByteRange part = window.Intersect({it->first, it->second});
    if (!part.empty()) parts.push_back(part);
  }
  return parts;
}

std::vector<ByteRange> RangeSet::Gaps(ByteRange window) const {
  std::vector<ByteRange> gaps;
  for (const ByteRange part : Within(window)) {
    if (window.begin < part.begin) gaps.push_back({window.begin, part.begin});
    window.begin = part.end;
  }
  if (!window.empty()) gaps.push_back(window);
  return gaps;
}

}  // namespace fetcher
