#include "cachecore/values/presence_map.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <vector>

#include "tests/cachecore/engine/seed.h"

namespace cachecore {
namespace {

constexpr uint64_t kLeafBytes = PresenceLeaf::kBytes;

// The same contract, one bool a block and one block at a time.
class NaiveMap {
 public:
  explicit NaiveMap(uint64_t size) : size_(size), blocks_((size + kBlockSize - 1) / kBlockSize) {}

  ByteRange Add(ByteRange range) {
    ByteRange marked{0, 0};
    for (uint64_t block = std::min(range.begin, size_) / kBlockSize; block < blocks_.size();
         ++block) {
      const ByteRange bytes = Bytes(block);
      if (bytes.begin >= range.end) break;
      if (bytes.begin < range.begin || bytes.end > range.end) continue;
      if (!blocks_[block]) present_ += bytes.size();
      blocks_[block] = true;
      if (marked.empty()) marked.begin = bytes.begin;
      marked.end = bytes.end;
    }
    return marked;
  }
  uint64_t First(ByteRange window, bool present) const {
    const uint64_t end = std::min(window.end, size_);
    if (window.begin >= end) return end;
    for (uint64_t block = window.begin / kBlockSize; block * kBlockSize < end; ++block) {
      if (blocks_[block] == present) return std::max(window.begin, block * kBlockSize);
    }
    return end;
  }
  std::vector<ByteRange> Gaps(ByteRange window) const {
    std::vector<ByteRange> gaps;
    const uint64_t end = std::min(window.end, size_);
    for (uint64_t at = window.begin; at < end;) {
      const ByteRange piece = Bytes(at / kBlockSize).Intersect({at, end});
      if (!blocks_[at / kBlockSize]) {
        if (!gaps.empty() && gaps.back().end == piece.begin) {
          gaps.back().end = piece.end;
        } else {
          gaps.push_back(piece);
        }
      }
      at = piece.end;
    }
    return gaps;
  }
  uint64_t present_bytes() const { return present_; }

 private:
  ByteRange Bytes(uint64_t block) const {
    return {block * kBlockSize, std::min(size_, (block + 1) * kBlockSize)};
  }
  uint64_t size_;
  uint64_t present_ = 0;
  std::vector<bool> blocks_;
};

// Near block, leaf and object edges more often than chance would have it.
uint64_t RandomOffset(uint64_t size, std::mt19937_64* random) {
  uint64_t offset = (*random)() % (size + 2 * kBlockSize);
  if ((*random)() % 8 == 0) offset = size - std::min(size, (*random)() % (3 * kBlockSize));
  if ((*random)() % 8 == 0) offset = kLeafBytes * ((*random)() % 3) + (*random)() % 3 * kBlockSize;
  if ((*random)() % 2 == 0) offset -= offset % kBlockSize;
  return offset;
}

ByteRange RandomRange(uint64_t size, std::mt19937_64* random) {
  const uint64_t begin = RandomOffset(size, random);
  uint64_t length = (*random)() % (40 * kBlockSize);
  if ((*random)() % 4 == 0) length -= length % kBlockSize;
  if ((*random)() % 2000 == 0) length = (*random)() % (size + kBlockSize);
  return ByteRange::At(begin, length);
}

void CompareOnce(uint64_t size, std::mt19937_64* random, PresenceMap* map, NaiveMap* naive) {
  const ByteRange range = RandomRange(size, random);
  SCOPED_TRACE("size " + std::to_string(size) + ", range " + range.ToString());
  switch ((*random)() % 6) {
    case 0:
    case 1: {
      const ByteRange rounded = map->RoundInward(range);
      const ByteRange added = map->Add(range);
      const ByteRange expected = naive->Add(range);
      ASSERT_EQ(added, rounded);
      ASSERT_EQ(added.empty() ? ByteRange() : added, expected);
      ASSERT_EQ(map->present_bytes(), naive->present_bytes());
      ASSERT_EQ(map->complete(), naive->present_bytes() == size);
      break;
    }
    case 2:
      ASSERT_EQ(map->Covers(range), naive->Gaps(range).empty());
      break;
    case 3:
      ASSERT_EQ(map->FirstMissing(range), naive->First(range, false));
      break;
    case 4:
      ASSERT_EQ(map->FirstPresent(range), naive->First(range, true));
      break;
    case 5:
      ASSERT_EQ(map->Gaps(range), naive->Gaps(range));
      break;
  }
}

TEST(PresenceMapTest, AgreesWithANaiveModelOverAMillionRandomOperations) {
  const uint64_t seed = TestSeed();
  SCOPED_TRACE("HOLDFAST_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  const std::vector<uint64_t> sizes = {
      0,
      1,
      kBlockSize - 1,
      kBlockSize,
      100000,
      9 << 20,
      kLeafBytes - 1,
      kLeafBytes,
      kLeafBytes + 1,
      2 * kLeafBytes + 12345,
      3 * kLeafBytes,
  };
  int operations = 0;
  for (const uint64_t size : sizes) {
    PresenceMap map(size);
    NaiveMap naive(size);
    for (int i = 0; i < 100000; ++i, ++operations) {
      CompareOnce(size, &random, &map, &naive);
      if (HasFatalFailure()) return;
    }
    map.Add({0, size});
    EXPECT_TRUE(map.complete());
    EXPECT_TRUE(map.Covers({0, UINT64_MAX}));
  }
  EXPECT_GT(operations, 1000000);
}

TEST(PresenceMapTest, APartlyWrittenBlockIsNeverPresent) {
  PresenceMap map(10 * kBlockSize);
  EXPECT_TRUE(map.Add({1, kBlockSize}).empty());
  EXPECT_TRUE(map.Add({0, kBlockSize - 1}).empty());
  EXPECT_EQ(map.Add({1, 3 * kBlockSize - 1}), (ByteRange{kBlockSize, 2 * kBlockSize}));
  EXPECT_EQ(map.present_bytes(), kBlockSize);
}

TEST(PresenceMapTest, TheTailBlockCountsWhenFilledToTheObjectsEnd) {
  PresenceMap map(kBlockSize + 10);
  EXPECT_TRUE(map.Add({kBlockSize, kBlockSize + 9}).empty());
  EXPECT_EQ(map.Add({kBlockSize, kBlockSize + 10}), (ByteRange{kBlockSize, kBlockSize + 10}));
  EXPECT_EQ(map.present_bytes(), 10u);
  EXPECT_EQ(map.Add({0, UINT64_MAX}), (ByteRange{0, kBlockSize + 10}));
  EXPECT_TRUE(map.complete());
}

TEST(PresenceMapTest, AWindowIsAnsweredFromWithinItsFirstBlock) {
  PresenceMap map(kLeafBytes);
  map.Add({0, kBlockSize});
  EXPECT_EQ(map.FirstMissing({5, 6}), 6u);
  EXPECT_EQ(map.FirstMissing({kBlockSize + 5, kBlockSize + 6}), kBlockSize + 5);
  EXPECT_EQ(map.FirstPresent({5, 6}), 5u);
  EXPECT_EQ(map.Gaps({7, kBlockSize + 7}), (std::vector<ByteRange>{{kBlockSize, kBlockSize + 7}}));
}

TEST(PresenceMapTest, PersistedLeavesAddUpToTheSameMap) {
  PresenceMap map(2 * kLeafBytes + 100);
  ASSERT_TRUE(map.MergeLeaf(1, PresenceLeaf::EncodeRun(3, 5)).ok());
  ASSERT_TRUE(map.MergeLeaf(1, PresenceLeaf::EncodeRun(4, 8)).ok());
  ASSERT_TRUE(map.MergeLeaf(2, PresenceLeaf::EncodeRun(0, 1)).ok());
  EXPECT_EQ(map.present_bytes(), 5 * kBlockSize + 100);
  EXPECT_TRUE(map.Covers({kLeafBytes + 3 * kBlockSize, kLeafBytes + 8 * kBlockSize}));
  ASSERT_TRUE(map.MergeLeaf(0, PresenceLeaf::EncodeRun(0, PresenceLeaf::kBlocks)).ok());
  ASSERT_TRUE(map.MergeLeaf(1, PresenceLeaf::EncodeRun(0, PresenceLeaf::kBlocks)).ok());
  EXPECT_TRUE(map.complete());
}

TEST(PresenceMapTest, ALeafThatDoesNotFitTheObjectIsRefusedAndChangesNothing) {
  PresenceMap map(kLeafBytes + 100);
  EXPECT_EQ(map.MergeLeaf(1, PresenceLeaf::EncodeRun(0, 2)).error(), EBADMSG);
  EXPECT_EQ(map.MergeLeaf(2, PresenceLeaf::EncodeRun(0, 1)).error(), EBADMSG);
  EXPECT_EQ(map.MergeLeaf(UINT32_MAX, PresenceLeaf::EncodeRun(0, 1)).error(), EBADMSG);
  EXPECT_EQ(map.MergeLeaf(0, "garbage").error(), EBADMSG);
  EXPECT_EQ(map.present_bytes(), 0u);
}

TEST(PresenceMapTest, ATebibyteOfEverySecondBlockStaysUnder64MebibytesOfMemory) {
  const uint64_t size = uint64_t{1} << 40;
  PresenceLeaf checkerboard;
  for (uint32_t block = 0; block < PresenceLeaf::kBlocks; block += 2) {
    checkerboard.Add(block, block + 1);
  }
  const std::string encoded = checkerboard.Encode();
  PresenceMap map(size);
  for (uint32_t leaf = 0; leaf < size / kLeafBytes; ++leaf) {
    ASSERT_TRUE(map.MergeLeaf(leaf, encoded).ok());
  }
  EXPECT_EQ(map.present_bytes(), size / 2);
  EXPECT_GT(map.memory_bytes(), size_t{32} << 20) << "the bitmaps alone";
  EXPECT_LT(map.memory_bytes(), size_t{64} << 20);
}

TEST(PresenceMapTest, TheLargestObjectHasItsLastLeaf) {
  PresenceMap map(PresenceMap::kMaxObjectSize);
  const uint64_t last = PresenceMap::kMaxObjectSize - kBlockSize;
  EXPECT_EQ(map.Add({last, PresenceMap::kMaxObjectSize}).size(), kBlockSize);
  EXPECT_EQ(map.FirstPresent({0, UINT64_MAX}), last);
}

}  // namespace
}  // namespace cachecore
