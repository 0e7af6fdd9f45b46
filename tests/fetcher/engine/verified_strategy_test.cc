// VerifiedStrategy: what is fetched next of an object with a digest, and what is given up.

#include "fetcher/engine/verified_strategy.h"

#include <gtest/gtest.h>

#include "tests/cachecore/verity/built_tree.h"
#include "tests/fetcher/engine/named_origin.h"

namespace fetcher {
namespace {

using cachecore::kVerityBlock;
using StepKind = FetchStep::Kind;

// A tree of three blocks: the root, and leaves for the first 128 and the last 72 blocks.
constexpr uint64_t kVerifiedSize = 200 * kVerityBlock;
constexpr uint64_t kLargestRun = 64 * kVerityBlock;

ByteRange BlockAt(uint64_t number) { return ByteRange::At(number * kVerityBlock, kVerityBlock); }

class VerifiedStrategyTest : public testing::Test {
 protected:
  void TakeWholeTree() { EXPECT_TRUE(strategy_.TakeTree(0, 0, built_.tree)); }
  // Both origins have it wrong.
  void SpoilBlock(uint64_t number) {
    (void)strategy_.OnWrongBlock(0, BlockAt(number));
    (void)strategy_.OnWrongBlock(1, BlockAt(number));
  }

  const cachecore::BuiltTree built_ = cachecore::BuildOf(std::string(kVerifiedSize, 'x'));
  std::mt19937 random_;
  cachecore::TreeCache cache_{16};
  OriginSet origins_{{NamedOrigin("a"), NamedOrigin("b")},
                     {std::chrono::seconds(1), std::chrono::seconds(5), std::chrono::seconds(4)},
                     &random_};
  VerifiedStrategy strategy_{ObjectTree(built_.digest, kVerifiedSize, &cache_, 1),
                             &origins_,
                             "image",
                             "image.merkle",
                             kVerifiedSize,
                             kLargestRun};
};

TEST_F(VerifiedStrategyTest, TheTreeAboveComesBeforeTheData) {
  const FetchStep step = strategy_.Next(0, 0);
  EXPECT_EQ(step.kind, StepKind::kTree);
  EXPECT_EQ(step.block, 0u);
  EXPECT_EQ(step.without, 0u);
  TakeWholeTree();
  const FetchStep next = strategy_.Next(0, 0);
  EXPECT_EQ(next.kind, StepKind::kData);
  EXPECT_EQ(next.end, kLargestRun);
}

TEST_F(VerifiedStrategyTest, ARunEndsWhereItsTreeEnds) {
  const std::string part = built_.tree.substr(0, 2 * kVerityBlock);
  ASSERT_TRUE(strategy_.TakeTree(0, 0, part));
  EXPECT_EQ(strategy_.Next(100 * kVerityBlock, 0).end, 128 * kVerityBlock);
  const auto ahead = strategy_.TreeAhead(128 * kVerityBlock);
  ASSERT_TRUE(ahead);
  EXPECT_EQ(ahead->block, 2u);
  EXPECT_FALSE(strategy_.TreeAhead(0));
  EXPECT_FALSE(strategy_.TreeAhead(kVerifiedSize));
}

TEST_F(VerifiedStrategyTest, AnOriginIsNotAskedAgainForWhatItHadWrong) {
  TakeWholeTree();
  EXPECT_EQ(strategy_.OnWrongBlock(0, BlockAt(2)),
            "http://a/image: bytes " + BlockAt(2).ToString() + " are not what the digest says");
  (void)strategy_.OnWrongBlock(0, BlockAt(3));
  EXPECT_EQ(strategy_.Next(0, 0).end, BlockAt(2).begin);
  const FetchStep step = strategy_.Next(BlockAt(2).begin, 0);
  EXPECT_EQ(step.kind, StepKind::kData);
  EXPECT_EQ(step.without, 0b01u);
  EXPECT_EQ(step.end, BlockAt(3).end);
}

TEST_F(VerifiedStrategyTest, WhatEveryOriginHasWrongIsLostAndAskedForAgainLater) {
  TakeWholeTree();
  SpoilBlock(2);
  const FetchStep step = strategy_.Next(BlockAt(2).begin, 0);
  EXPECT_EQ(step.kind, StepKind::kLost);
  EXPECT_EQ(step.end, BlockAt(2).end);
  EXPECT_EQ(strategy_.Lose(step, BlockAt(2), 0),
            "object image: bytes " + BlockAt(2).ToString() +
                " are wrong at http://a/image, http://b/image");
  EXPECT_EQ(strategy_.Next(BlockAt(2).begin, 0).kind, StepKind::kData);
}

TEST_F(VerifiedStrategyTest, AnOriginThatRefusesCannotGiveABlockThatTheOtherHasWrong) {
  TakeWholeTree();
  (void)strategy_.OnWrongBlock(0, BlockAt(2));
  const FetchStep step = strategy_.Next(BlockAt(2).begin, /*out=*/0b10);
  EXPECT_EQ(step.kind, StepKind::kLost);
  EXPECT_EQ(strategy_.Lose(step, BlockAt(2), 0b10),
            "object image: bytes " + BlockAt(2).ToString() +
                " are wrong at http://a/image; other origins have refused");
}

TEST_F(VerifiedStrategyTest, ATreeBlockThatEveryOriginHasWrongLosesTheDataBelow) {
  std::string bad = built_.tree;
  bad[2 * kVerityBlock] ^= 1;
  EXPECT_FALSE(strategy_.TakeTree(0, 0, bad));
  const uint64_t begin = 130 * kVerityBlock;
  const ByteRange rest{begin, kVerifiedSize};
  EXPECT_EQ(strategy_.Next(begin, 0).kind, StepKind::kTree);
  EXPECT_EQ(strategy_.Next(begin, 0).without, 0b01u);
  EXPECT_FALSE(strategy_.TreeAhead(begin));
  EXPECT_FALSE(strategy_.TakeTree(1, 0, bad));
  const FetchStep step = strategy_.Next(begin, 0);
  EXPECT_EQ(step.kind, StepKind::kLost);
  EXPECT_EQ(step.end, kVerifiedSize);
  EXPECT_EQ(strategy_.Lose(step, rest, 0),
            "object image: block 2 of the Merkle tree over bytes " + rest.ToString() +
                " is wrong at http://a/image.merkle, http://b/image.merkle");
  EXPECT_EQ(strategy_.Next(begin, 0).kind, StepKind::kTree);
}

TEST_F(VerifiedStrategyTest, AReadComesWholeFromOneOriginOrNotAtAll) {
  EXPECT_EQ(strategy_.ForRead(BlockAt(0), 0).kind, StepKind::kTree);
  TakeWholeTree();
  const ByteRange read{BlockAt(1).begin + 10, BlockAt(3).begin + 10};
  EXPECT_EQ(strategy_.ForRead(read, 0).without, 0u);
  (void)strategy_.OnWrongBlock(0, BlockAt(2));
  EXPECT_EQ(strategy_.ForRead(read, 0).kind, StepKind::kData);
  EXPECT_EQ(strategy_.ForRead(read, 0).without, 0b01u);
  (void)strategy_.OnWrongBlock(1, BlockAt(2));
  const FetchStep step = strategy_.ForRead(read, 0);
  EXPECT_EQ(step.kind, StepKind::kLost);
  EXPECT_EQ(strategy_.LoseRead(step, 0),
            "object image: the block at offset 8192 is wrong at http://a/image, http://b/image");
  EXPECT_EQ(strategy_.ForRead(read, 0).kind, StepKind::kData);
}

TEST_F(VerifiedStrategyTest, WhatIsFetchedIsWholeBlocksWithTheTreeAbove) {
  TakeWholeTree();
  EXPECT_EQ(strategy_.Widen(ByteRange{5000, 9000}), (ByteRange{4096, 12288}));
  EXPECT_EQ(strategy_.PathsOf(BlockAt(1)).size(), 2u);
  const ByteRange across{BlockAt(127).begin, BlockAt(128).end};
  EXPECT_EQ(strategy_.PathsOf(across).size(), 3u);
}

}  // namespace
}  // namespace fetcher
