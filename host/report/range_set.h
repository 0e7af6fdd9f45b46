// Sums over sorted ranges that do not overlap.
//
// Threads  thread-safe: no state.
// Cost     linear in both lists, or logarithmic and linear in what overlaps where it says so.

#ifndef HOST_REPORT_RANGE_SET_H_
#define HOST_REPORT_RANGE_SET_H_

#include <cstdint>
#include <vector>

#include "cachecore/base/byte_range.h"

namespace host {

using Ranges = std::vector<cachecore::ByteRange>;

uint64_t SizeOf(const Ranges& ranges);
// How much of `window` is in `ranges`: O(log ranges + those that overlap).
uint64_t SizeIn(const Ranges& ranges, cachecore::ByteRange window);
bool Covers(const Ranges& ranges, cachecore::ByteRange window);
Ranges Intersection(const Ranges& a, const Ranges& b);

}  // namespace host

#endif  // HOST_REPORT_RANGE_SET_H_
