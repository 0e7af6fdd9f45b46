#include "cachecore/values/presence_leaf.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <vector>

#include "tests/cachecore/engine/seed.h"

namespace cachecore {
namespace {

constexpr uint32_t kBlocks = PresenceLeaf::kBlocks;

std::vector<bool> BlocksOf(const PresenceLeaf& leaf) {
  std::vector<bool> blocks(kBlocks);
  for (uint32_t block = 0; block < kBlocks; ++block) {
    blocks[block] = leaf.FirstPresent(block, block + 1) == block;
  }
  return blocks;
}

PresenceLeaf Decoded(const std::string& encoded) {
  PresenceLeaf leaf;
  uint32_t added = 0;
  const Status status = leaf.Merge(encoded, &added);
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(added, leaf.count());
  return leaf;
}

PresenceLeaf RandomLeaf(std::mt19937_64* random) {
  PresenceLeaf leaf;
  const auto runs = (*random)() % 3 == 0 ? (*random)() % 8000 : (*random)() % 12;
  for (uint64_t i = 0; i < runs; ++i) {
    const auto begin = static_cast<uint32_t>((*random)() % kBlocks);
    const auto length = static_cast<uint32_t>((*random)() % ((*random)() % 5 == 0 ? kBlocks : 5));
    leaf.Add(begin, std::min(kBlocks, begin + length));
  }
  return leaf;
}

TEST(PresenceLeafTest, AddCountsOnlyBlocksThatWereAbsent) {
  PresenceLeaf leaf;
  EXPECT_EQ(leaf.Add(60, 70), 10u);
  EXPECT_EQ(leaf.Add(64, 128), 58u);
  EXPECT_EQ(leaf.Add(0, 0), 0u);
  EXPECT_EQ(leaf.count(), 68u);
}

TEST(PresenceLeafTest, AFullLeafHasNoBitmap) {
  PresenceLeaf at_once;
  EXPECT_EQ(at_once.Add(0, kBlocks), kBlocks);
  PresenceLeaf bit_by_bit;
  for (uint32_t block = kBlocks; block-- > 0;) bit_by_bit.Add(block, block + 1);
  EXPECT_EQ(at_once.memory_bytes(), sizeof(PresenceLeaf));
  EXPECT_EQ(bit_by_bit.memory_bytes(), sizeof(PresenceLeaf));
  EXPECT_EQ(bit_by_bit.FirstMissing(0, kBlocks), kBlocks);
  EXPECT_EQ(bit_by_bit.Add(5, 9), 0u);
}

TEST(PresenceLeafTest, SearchesStopAtTheirWindow) {
  PresenceLeaf leaf;
  leaf.Add(63, 65);
  EXPECT_EQ(leaf.FirstPresent(0, 63), 63u);
  EXPECT_EQ(leaf.FirstPresent(0, 64), 63u);
  EXPECT_EQ(leaf.FirstPresent(65, 200), 200u);
  EXPECT_EQ(leaf.FirstMissing(63, 65), 65u);
  EXPECT_EQ(leaf.FirstMissing(63, 64), 64u);
  EXPECT_EQ(leaf.FirstMissing(64, 300), 65u);
  EXPECT_EQ(leaf.FirstPresent(7, 7), 7u);
}

TEST(PresenceLeafTest, EncodingsAreAsTheFormatDocumentSays) {
  PresenceLeaf leaf;
  EXPECT_EQ(leaf.Encode(), "\x01");
  leaf.Add(0, 2);
  leaf.Add(300, 301);
  EXPECT_EQ(leaf.Encode(), (std::string{1, 0, 2, '\xaa', 2, 1}));
  EXPECT_EQ(PresenceLeaf::EncodeRun(5, 6), (std::string{1, 5, 1}));
  EXPECT_EQ(PresenceLeaf::EncodeRun(0, kBlocks), (std::string{1, 0, '\x80', '\x80', 2}));
}

TEST(PresenceLeafTest, ACheckerboardIsEncodedAsABitmap) {
  PresenceLeaf leaf;
  for (uint32_t block = 0; block < kBlocks; block += 2) leaf.Add(block, block + 1);
  const std::string encoded = leaf.Encode();
  EXPECT_EQ(encoded.size(), 4097u);
  EXPECT_EQ(encoded.substr(0, 2), "\x02\x55");
  EXPECT_EQ(BlocksOf(Decoded(encoded)), BlocksOf(leaf));
}

TEST(PresenceLeafTest, EveryLeafSurvivesItsEncodingAndNoneIsLongerThanABitmap) {
  const uint64_t seed = TestSeed();
  SCOPED_TRACE("HOLDFAST_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int i = 0; i < 200; ++i) {
    const PresenceLeaf leaf = RandomLeaf(&random);
    const std::string encoded = leaf.Encode();
    EXPECT_LE(encoded.size(), 4097u);
    const PresenceLeaf decoded = Decoded(encoded);
    ASSERT_EQ(BlocksOf(decoded), BlocksOf(leaf));
    ASSERT_EQ(decoded.Encode(), encoded);
  }
}

TEST(PresenceLeafTest, MergeIsUnionInAnyOrder) {
  const uint64_t seed = TestSeed();
  SCOPED_TRACE("HOLDFAST_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int i = 0; i < 100; ++i) {
    const PresenceLeaf a = RandomLeaf(&random);
    const PresenceLeaf b = RandomLeaf(&random);
    PresenceLeaf ab = Decoded(a.Encode());
    PresenceLeaf ba = Decoded(b.Encode());
    uint32_t added = 0;
    ASSERT_TRUE(ab.Merge(b.Encode(), &added).ok());
    EXPECT_EQ(ab.count(), a.count() + added);
    ASSERT_TRUE(ba.Merge(a.Encode(), &added).ok());
    ASSERT_EQ(BlocksOf(ab), BlocksOf(ba));
    std::vector<bool> both = BlocksOf(a);
    const std::vector<bool> blocks_b = BlocksOf(b);
    for (uint32_t block = 0; block < kBlocks; ++block) both[block] = both[block] || blocks_b[block];
    ASSERT_EQ(BlocksOf(ab), both);
  }
}

TEST(PresenceLeafTest, BytesThatAreNotALeafAreRefusedAndChangeNothing) {
  const std::vector<std::string> bad = {
      "",
      {0},
      {3},
      "\xff",
      {1, 0},                             // A skip without its length.
      {1, 0, 0},                          // An empty run.
      {1, 0, 1, 0, 1},                    // Two runs that touch.
      {1, '\x80', 0, 1},                  // A number longer than need be.
      {1, 0, '\x80'},                     // A number cut off.
      {1, 0, '\x80', '\x80', '\x80', 0},  // A number too long.
      {1, 0, '\x81', '\x80', 2},          // Past the leaf's end.
      {1, '\xff', '\xff', 1, 2},          // Past the leaf's end in two steps.
      std::string(1, 2) + std::string(4095, 'x'),
      std::string(1, 2) + std::string(4097, 'x'),
  };
  PresenceLeaf leaf;
  leaf.Add(3, 9);
  for (const std::string& bytes : bad) {
    uint32_t added = 7;
    EXPECT_EQ(leaf.Merge(bytes, &added).error(), EBADMSG) << testing::PrintToString(bytes);
    EXPECT_EQ(added, 0u);
    EXPECT_EQ(leaf.Encode(), PresenceLeaf::EncodeRun(3, 9));
  }
}

TEST(PresenceLeafTest, RandomBytesEitherDecodeToThemselvesOrChangeNothing) {
  const uint64_t seed = TestSeed();
  SCOPED_TRACE("HOLDFAST_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  int accepted = 0;
  for (int i = 0; i < 200000; ++i) {
    std::string bytes(random() % 12, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random() % (random() % 2 ? 256 : 4));
    if (!bytes.empty() && random() % 8 != 0) bytes[0] = 1;
    PresenceLeaf leaf;
    uint32_t added = 0;
    if (!leaf.Merge(bytes, &added).ok()) {
      ASSERT_EQ(leaf.count(), 0u);
      continue;
    }
    ++accepted;
    ASSERT_EQ(leaf.Encode(), bytes) << "runs have one encoding";
  }
  EXPECT_GT(accepted, 1000);
}

}  // namespace
}  // namespace cachecore
