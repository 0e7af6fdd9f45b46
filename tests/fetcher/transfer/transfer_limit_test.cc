#include "fetcher/transfer/transfer_limit.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace fetcher {
namespace {

// An origin that gives each transfer `each` bytes a second, and no more than `all` together.
constexpr Duration kStep = std::chrono::milliseconds(10);

class TransferLimitTest : public testing::Test {
 protected:
  void Run(Duration time, uint64_t each, uint64_t all, double used = 1.0) {
    for (const Duration end = now_ + time; now_ < end; now_ += kStep) {
      const auto under_way = static_cast<uint32_t>(limit_.value() * used);
      limit_.Brought(std::min(under_way * each, all) / 100, under_way, now_);
      most_seen_ = std::max(most_seen_, limit_.value());
    }
  }

  TransferLimit limit_{16};
  Duration now_ = std::chrono::hours(1);
  uint32_t most_seen_ = 0;
};

TEST_F(TransferLimitTest, GrowsWhereEachTransferIsCapped) {
  EXPECT_EQ(limit_.value(), 8u);
  Run(std::chrono::milliseconds(500), 1 << 20, UINT64_MAX);
  EXPECT_EQ(limit_.value(), 16u);
  Run(std::chrono::minutes(1), 1 << 20, UINT64_MAX);
  EXPECT_EQ(limit_.value(), 16u);
}

TEST_F(TransferLimitTest, TakesBackAStepThatDoesNotHelpAndTriesItAgainLater) {
  Run(std::chrono::seconds(1), 100 << 20, 100 << 20);
  EXPECT_EQ(most_seen_, 16u);
  EXPECT_EQ(limit_.value(), 8u);
  most_seen_ = 0;
  Run(std::chrono::seconds(4), 100 << 20, 100 << 20);
  EXPECT_EQ(most_seen_, 8u);
  Run(TransferLimit::kTryAgain, 1 << 20, UINT64_MAX);  // The path is another one now.
  EXPECT_EQ(limit_.value(), 16u);
}

TEST_F(TransferLimitTest, FewerAreEnoughWhereTheOriginCapsNone) {
  Run(std::chrono::seconds(1), UINT64_MAX / 64, 1 << 30);
  EXPECT_EQ(most_seen_, 8u);
  EXPECT_EQ(limit_.value(), TransferLimit::kFirst);
}

TEST_F(TransferLimitTest, TakesBackAStepDownThatIsSlower) {
  Run(std::chrono::milliseconds(500), 20 << 20, UINT64_MAX);
  ASSERT_EQ(limit_.value(), 16u);
  Run(TransferLimit::kTryAgain * 2, 200 << 20, UINT64_MAX);
  EXPECT_EQ(limit_.value(), 16u);
}

TEST_F(TransferLimitTest, StaysWhereTheReaderIsTheSlowerSide) {
  Run(std::chrono::seconds(5), 1 << 20, UINT64_MAX, 0.5);
  EXPECT_EQ(most_seen_, 8u);
}

TEST_F(TransferLimitTest, ConcludesNothingFromAPause) {
  for (int i = 0; i < 100; ++i) {
    limit_.Brought(1 << 20, limit_.value(), now_);
    now_ += TransferLimit::kPause * 2;
  }
  EXPECT_EQ(limit_.value(), 8u);
}

TEST_F(TransferLimitTest, StartsAgainAfterAFailure) {
  Run(std::chrono::seconds(1), 1 << 20, UINT64_MAX);
  ASSERT_EQ(limit_.value(), 16u);
  limit_.Failed(now_);
  EXPECT_EQ(limit_.value(), TransferLimit::kFirst);
  Run(std::chrono::seconds(4), 1 << 20, UINT64_MAX);
  EXPECT_EQ(limit_.value(), TransferLimit::kFirst);
}

TEST_F(TransferLimitTest, AFailureEndsWhatTheRateBeforeItHadShown) {
  Run(std::chrono::seconds(1), 50 << 20, UINT64_MAX);
  ASSERT_EQ(limit_.value(), 16u);
  limit_.Failed(now_);
  EXPECT_EQ(limit_.Sharers(), TransferLimit::kFirst);
  EXPECT_EQ(limit_.LargestRange(16 << 20), TransferLimit::kSmallestRange);
}

TEST_F(TransferLimitTest, OneTransferTakesAllWhereTheOriginCapsNone) {
  EXPECT_EQ(limit_.Sharers(), 8u);
  Run(std::chrono::seconds(1), 1 << 30, UINT64_MAX);
  EXPECT_EQ(limit_.Sharers(), 1u);
}

TEST_F(TransferLimitTest, OneDisturbedRoundTakesNoStepBack) {
  Run(TransferLimit::kRound + kStep, 1 << 20, UINT64_MAX);
  ASSERT_EQ(limit_.value(), 16u);
  Run(TransferLimit::kRound, 1 << 19, UINT64_MAX);
  Run(TransferLimit::kRound * 2, 1 << 20, UINT64_MAX);
  EXPECT_EQ(limit_.value(), 16u);
}

TEST_F(TransferLimitTest, AStepIsTakenBackAfterTheLastOfItsRounds) {
  Run(TransferLimit::kRound + kStep, 1 << 20, UINT64_MAX);
  ASSERT_EQ(limit_.value(), 16u);
  Run(TransferLimit::kRound * (TransferLimit::kRounds - 1), 1 << 19, UINT64_MAX);
  EXPECT_EQ(limit_.value(), 16u);
  Run(TransferLimit::kRound, 1 << 19, UINT64_MAX);
  EXPECT_EQ(limit_.value(), 8u);
}

TEST_F(TransferLimitTest, KeepsToTheMost) {
  limit_ = TransferLimit(1);
  Run(std::chrono::seconds(1), 1 << 20, UINT64_MAX);
  EXPECT_EQ(most_seen_, 1u);
  limit_ = TransferLimit(6);
  Run(std::chrono::seconds(1), 1 << 20, UINT64_MAX);
  EXPECT_EQ(limit_.value(), 6u);
}

TEST_F(TransferLimitTest, ARangeIsWhatOneTransferBringsInItsTime) {
  EXPECT_EQ(limit_.LargestRange(16 << 20), TransferLimit::kSmallestRange);
  EXPECT_EQ(limit_.LargestRange(4096), 4096u);
  Run(std::chrono::seconds(1), 50 << 20, UINT64_MAX);
  ASSERT_EQ(limit_.value(), 16u);
  EXPECT_GE(limit_.LargestRange(16 << 20), 3u << 20);
  EXPECT_LE(limit_.LargestRange(16 << 20), 5u << 20);
  Run(std::chrono::seconds(1), 1 << 20, UINT64_MAX);  // Slow.
  EXPECT_EQ(limit_.LargestRange(16 << 20), TransferLimit::kSmallestRange);
  Run(std::chrono::seconds(1), 1 << 30, UINT64_MAX);
  EXPECT_EQ(limit_.LargestRange(16 << 20), 16u << 20);
}

}  // namespace
}  // namespace fetcher
