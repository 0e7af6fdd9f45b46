// RangeSet: a set of byte offsets as ranges, for what a fetcher wants, misses or has in flight.
//
// Model    disjoint, non-adjacent, non-empty ranges in ascending order.
// Threads  thread-compatible.
// Cost     O(log n) plus the ranges that a call touches.

#ifndef FETCHER_TRANSFER_RANGE_SET_H_
#define FETCHER_TRANSFER_RANGE_SET_H_

#include <cstdint>
#include <map>
#include <vector>

#include "cachecore/base/byte_range.h"

namespace fetcher {

using cachecore::ByteRange;

class RangeSet {
 public:
  void Add(ByteRange range);
  void Remove(ByteRange range);
  bool empty() const { return end_by_begin_.empty(); }
  uint64_t byte_count() const { return byte_count_; }
  // The parts of `window` that are in the set, and those that are not, ascending.
  std::vector<ByteRange> Within(ByteRange window) const;
  std::vector<ByteRange> Gaps(ByteRange window) const;

 private:
  std::map<uint64_t, uint64_t> end_by_begin_;
  uint64_t byte_count_ = 0;
};

}  // namespace fetcher

#endif  // FETCHER_TRANSFER_RANGE_SET_H_
