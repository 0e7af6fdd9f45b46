// OriginSet: which origin is asked next, and what its failures lead to.

#include "fetcher/engine/origin_set.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "tests/fetcher/engine/named_origin.h"

namespace fetcher {
namespace {

using std::chrono::seconds;
using Kind = Failure::Kind;

Failure FailureOf(Kind kind, const std::string& cause, Duration retry_after = Duration::zero()) {
  return {kind, EIO, cause, retry_after};
}

class OriginSetTest : public testing::Test {
 protected:
  std::mt19937 random_;
  const Duration now_ = seconds(100);
  OriginSet set_{{NamedOrigin("a"), NamedOrigin("b"), NamedOrigin("c")},
                 {seconds(1), seconds(5), seconds(4)},
                 &random_};
};

TEST_F(OriginSetTest, TheFirstIsAskedUntilItFails) {
  EXPECT_EQ(set_.Pick(0, 1, now_), 0u);
  set_.Failed(0, FailureOf(Kind::kRetry, "away"), now_);
  EXPECT_EQ(set_.Pick(0, 1, now_), 1u);
  EXPECT_EQ(set_.Pick(0b010, 1, now_), 2u);
  // Its wait is over, but it has failed more often than the others.
  EXPECT_EQ(set_.Pick(0, 1, now_ + seconds(5)), 1u);
  set_.Served(0);
  EXPECT_EQ(set_.Pick(0, 1, now_ + seconds(5)), 0u);
}

TEST_F(OriginSetTest, OneThatHasBroughtWrongBytesComesAfterTheOthers) {
  set_.Demote(0);
  EXPECT_EQ(set_.Pick(0, 1, now_), 1u);
}

TEST_F(OriginSetTest, ABusyOriginIsNoReasonToAskAnother) {
  set_.SetProbing(0, true);
  EXPECT_TRUE(set_.IsAnyProbing());
  EXPECT_EQ(set_.Pick(0, 1, now_), std::nullopt);
  set_.SetProbing(0, false);
  EXPECT_FALSE(set_.IsAnyProbing());
  set_.at(0)->transfers = set_.at(0)->limit.value();
  EXPECT_EQ(set_.Pick(0, 1, now_), std::nullopt);
}

TEST_F(OriginSetTest, AFailureDuringAWaitMayMakeItLongerAndNotShorter) {
  set_.Failed(0, FailureOf(Kind::kRetry, "away", seconds(30)), now_);
  EXPECT_EQ(set_.RetryAt(0), now_ + seconds(30));
  set_.Failed(0, FailureOf(Kind::kRetry, "away", seconds(2)), now_ + seconds(1));
  EXPECT_EQ(set_.RetryAt(0), now_ + seconds(30));
  set_.Failed(0, FailureOf(Kind::kRetry, "away", seconds(60)), now_ + seconds(1));
  EXPECT_EQ(set_.RetryAt(0), now_ + seconds(61));
}

// Several transfers of one origin fail at the same moment when it goes away.
TEST_F(OriginSetTest, FailuresDuringAWaitCountAsOne) {
  const Failure away = FailureOf(Kind::kRetry, "away");
  set_.Failed(0, away, now_);
  const Duration retry_at = set_.RetryAt(0);
  for (int i = 0; i < 8; ++i) set_.Failed(0, away, now_);
  EXPECT_EQ(set_.RetryAt(0), retry_at);
  for (const size_t other : {1u, 2u}) {
    set_.Failed(other, away, now_);
    set_.Failed(other, away, set_.RetryAt(other));
  }
  EXPECT_EQ(set_.Pick(0, 1, now_ + seconds(30)), 0u);  // One failure; the others have two.
}

TEST_F(OriginSetTest, AFailureAtTheEndOfAWaitBeginsTheNextWait) {
  const Failure away = FailureOf(Kind::kRetry, "away");
  set_.Failed(0, away, now_);
  const Duration retry_at = set_.RetryAt(0);
  set_.Failed(0, away, retry_at);
  EXPECT_GT(set_.RetryAt(0), retry_at);
}

TEST_F(OriginSetTest, OneThatRefusedIsAskedAgainForWhatComesLater) {
  set_.Failed(0, FailureOf(Kind::kRefused, "404"), now_);
  set_.PutOut(0, 7);
  EXPECT_EQ(set_.OutMask(7), 0b001u);
  EXPECT_EQ(set_.OutMask(8), 0u);
  EXPECT_EQ(set_.Pick(0b110, 7, now_), std::nullopt);
  EXPECT_EQ(set_.Pick(0b110, 8, now_), 0u);
}

TEST_F(OriginSetTest, WhatAllHaveRefusedEndsAtTheEarliestRefusal) {
  set_.PutOut(0, 7);
  set_.PutOut(1, 5);
  EXPECT_EQ(set_.RefusedThrough(), std::nullopt);
  set_.PutOut(2, 9);
  EXPECT_EQ(set_.RefusedThrough(), 5u);
  set_.Served(1);
  EXPECT_EQ(set_.RefusedThrough(), std::nullopt);
}

TEST_F(OriginSetTest, AllWaitOnlyWhileEachWaitsOutAFailure) {
  for (size_t i = 0; i < set_.size(); ++i) {
    EXPECT_FALSE(set_.AreAllWaiting(now_));
    set_.Failed(i, FailureOf(Kind::kRetry, "away", seconds(10)), now_);
  }
  EXPECT_TRUE(set_.AreAllWaiting(now_));
  EXPECT_FALSE(set_.AreAllWaiting(now_ + seconds(10)));
}

TEST_F(OriginSetTest, TheWorstFailureIsOneThatMayPassThenAChangeThenARefusal) {
  set_.Failed(0, FailureOf(Kind::kRefused, "refused"), now_);
  EXPECT_EQ(set_.WorstFailure().cause, "refused");
  set_.Failed(1, FailureOf(Kind::kChanged, "changed"), now_);
  EXPECT_EQ(set_.WorstFailure().cause, "changed");
  set_.Failed(2, FailureOf(Kind::kRetry, "away"), now_);
  EXPECT_EQ(set_.WorstFailure().cause, "away");
}

TEST_F(OriginSetTest, AChangeIsBelievedWhenItHasBeenSaidThreeTimesOverTheTime) {
  const Failure changed = FailureOf(Kind::kChanged, "changed");
  const Failure doubted = set_.JudgeChange(0, changed, false, now_);
  EXPECT_EQ(doubted.kind, Kind::kRetry);
  EXPECT_EQ(doubted.cause, "changed; asking again");
  EXPECT_EQ(doubted.retry_after, seconds(2));
  EXPECT_TRUE(set_.IsDoubted(0));
  // At once is no second time.
  EXPECT_EQ(set_.JudgeChange(0, changed, false, now_).kind, Kind::kRetry);
  EXPECT_EQ(set_.JudgeChange(0, changed, false, now_ + seconds(2)).kind, Kind::kRetry);
  EXPECT_EQ(set_.JudgeChange(0, changed, false, now_ + seconds(4)).kind, Kind::kChanged);
}

TEST_F(OriginSetTest, AnotherChangeOrTheWantedVersionBeginsTheDoubtAgain) {
  const Failure changed = FailureOf(Kind::kChanged, "changed");
  (void)set_.JudgeChange(0, changed, false, now_);
  (void)set_.JudgeChange(0, changed, false, now_ + seconds(2));
  const Failure other = FailureOf(Kind::kChanged, "changed otherwise");
  EXPECT_EQ(set_.JudgeChange(0, other, false, now_ + seconds(4)).kind, Kind::kRetry);
  EXPECT_EQ(set_.JudgeChange(0, other, false, now_ + seconds(6)).kind, Kind::kRetry);
  set_.Served(0);
  EXPECT_FALSE(set_.IsDoubted(0));
  EXPECT_EQ(set_.JudgeChange(0, other, false, now_ + seconds(8)).kind, Kind::kRetry);
}

TEST_F(OriginSetTest, AChangeOfWhatADigestNamesIsNeverBelieved) {
  const Failure changed = FailureOf(Kind::kChanged, "changed");
  for (int i = 0; i < 5; ++i) {
    const Failure judged = set_.JudgeChange(0, changed, true, now_ + seconds(2 * i));
    EXPECT_EQ(judged.kind, Kind::kRetry);
    EXPECT_EQ(judged.cause, "changed; the object is known by its digest, so this is not it");
  }
  EXPECT_FALSE(set_.IsDoubted(0));
}

TEST_F(OriginSetTest, OriginsAreNamedByTheirUrls) {
  EXPECT_EQ(set_.all(), 0b111u);
  EXPECT_EQ(set_.Describe(0b101, "image"), "http://a/image, http://c/image");
  EXPECT_TRUE(set_.HasName("b"));
  EXPECT_FALSE(set_.HasName("d"));
}

}  // namespace
}  // namespace fetcher
