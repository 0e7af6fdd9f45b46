#include "cachecore/engine/read_ahead.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace cachecore {
namespace {

constexpr uint64_t kKiB = 1 << 10;
constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kFetchSize = 64 * kKiB;

class ReadAheadTest : public testing::Test {
 protected:
  // Reads `count` parts of `size` bytes one after the other from `begin` on, and returns what was
  // asked for.
  std::vector<ByteRange> ReadOn(uint64_t begin, uint64_t size, int count, uint64_t max) {
    std::vector<ByteRange> asked;
    for (int i = 0; i < count; ++i) {
      const ByteRange read = ByteRange::At(begin, size);
      begin = read.end;
      const ByteRange ahead = read_ahead_.Advance(read, kFetchSize, max);
      if (!ahead.empty()) asked.push_back(ahead);
      asked_end_ = std::max(asked_end_, ahead.end);
      if (asked_end_ > read.end) least_ahead_ = std::min(least_ahead_, asked_end_ - read.end);
    }
    return asked;
  }

  ReadAhead read_ahead_;
  uint64_t asked_end_ = 0;
  uint64_t least_ahead_ = UINT64_MAX;
};

TEST_F(ReadAheadTest, ALargeWindowIsKeptNearlyFull) {
  ReadOn(0, 128 * kKiB, 100, 32 * kMiB);
  least_ahead_ = UINT64_MAX;
  const auto asked = ReadOn(100 * 128 * kKiB, 128 * kKiB, 800, 32 * kMiB);
  EXPECT_GE(least_ahead_, 28 * kMiB);
  // No connection is asked for a part smaller than what one READ may be.
  for (const ByteRange& range : asked) EXPECT_GE(range.size(), 4 * kMiB);
}

TEST_F(ReadAheadTest, ASmallWindowIsAskedForInHalves) {
  ReadOn(0, 16 * kKiB, 20, 256 * kKiB);
  least_ahead_ = UINT64_MAX;
  const auto asked = ReadOn(20 * 16 * kKiB, 16 * kKiB, 100, 256 * kKiB);
  EXPECT_GE(least_ahead_, 128 * kKiB);
  for (const ByteRange& range : asked) EXPECT_GE(range.size(), 128 * kKiB);
}

TEST_F(ReadAheadTest, WhatIsAskedForIsNeverAskedForTwice) {
  const auto asked = ReadOn(0, 128 * kKiB, 1000, 32 * kMiB);
  for (size_t i = 1; i < asked.size(); ++i) EXPECT_GE(asked[i].begin, asked[i - 1].end);
}

TEST_F(ReadAheadTest, RandomReadsFetchNothingAhead) {
  for (int i = 1; i < 100; ++i) {
    EXPECT_TRUE(
        ReadOn(static_cast<uint64_t>(i * 7919 % 100) * 64 * kMiB + kMiB, 4 * kKiB, 1, 32 * kMiB)
            .empty());
  }
}

}  // namespace
}  // namespace cachecore
