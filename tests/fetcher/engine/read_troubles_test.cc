// ReadTroubles: budgets of requests that fail, and what the daemon is told of them.

#include "fetcher/engine/read_troubles.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fetcher {
namespace {

using cachecore::MsgId;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

class ReadTroublesTest : public testing::Test {
 protected:
  ReadTroubles Make(Duration budget) {
    return {budget, seconds(10),
            [this](MsgId id, const std::string& cause) { told_.emplace_back(id, cause); }};
  }
  std::vector<std::pair<MsgId, std::string>> Told() { return std::exchange(told_, {}); }

  std::vector<std::pair<MsgId, std::string>> told_;
  const MsgId first_{1};
  const MsgId second_{2};
  const Duration now_ = seconds(100);
};

TEST_F(ReadTroublesTest, TheBudgetRunsFromTheFirstFailureOn) {
  ReadTroubles troubles = Make(seconds(30));
  EXPECT_EQ(troubles.Met(first_, "away", now_), now_ + seconds(30));
  EXPECT_EQ(troubles.Met(first_, "refused", now_ + seconds(20)), now_ + seconds(30));
  EXPECT_EQ(troubles.Met(second_, "away", now_ + seconds(20)), now_ + seconds(50));
  EXPECT_THAT(troubles.Deadlines(), ElementsAre(now_ + seconds(30), now_ + seconds(50)));
  EXPECT_THAT(troubles.Exhausted(now_ + seconds(29)), IsEmpty());
  EXPECT_THAT(troubles.Exhausted(now_ + seconds(30)), ElementsAre(Pair(first_, "refused")));
}

TEST_F(ReadTroublesTest, ProgressBeginsTheBudgetAgain) {
  ReadTroubles troubles = Make(seconds(30));
  (void)troubles.Met(first_, "away", now_);
  troubles.Forget(first_);
  EXPECT_TRUE(troubles.empty());
  EXPECT_EQ(troubles.Met(first_, "away", now_ + seconds(40)), now_ + seconds(70));
}

TEST_F(ReadTroublesTest, AZeroBudgetNeverRunsOut) {
  ReadTroubles troubles = Make(Duration::zero());
  EXPECT_EQ(troubles.Met(first_, "away", now_), std::nullopt);
  EXPECT_THAT(troubles.Exhausted(now_ + std::chrono::hours(24)), IsEmpty());
  EXPECT_THAT(troubles.Deadlines(), IsEmpty());
}

TEST_F(ReadTroublesTest, AWaitUsesUpNoBudget) {
  ReadTroubles troubles = Make(seconds(30));
  troubles.Waits(first_, "no room", now_);
  EXPECT_THAT(Told(), ElementsAre(Pair(first_, "no room")));
  EXPECT_THAT(troubles.Deadlines(), IsEmpty());
  EXPECT_THAT(troubles.Exhausted(now_ + seconds(60)), IsEmpty());
}

TEST_F(ReadTroublesTest, ACauseIsToldOnceAndAgainAfterAWhile) {
  ReadTroubles troubles = Make(seconds(300));
  (void)troubles.Met(first_, "away", now_);
  EXPECT_THAT(Told(), ElementsAre(Pair(first_, "away")));
  (void)troubles.Met(first_, "away", now_ + seconds(9));
  EXPECT_THAT(Told(), IsEmpty());
  (void)troubles.Met(first_, "refused", now_ + seconds(9));
  EXPECT_THAT(Told(), ElementsAre(Pair(first_, "refused")));
  (void)troubles.Met(first_, "refused", now_ + seconds(19));
  EXPECT_THAT(Told(), ElementsAre(Pair(first_, "refused")));
}

TEST_F(ReadTroublesTest, WhatMustBeKnownAtOnceIsToldEachTime) {
  ReadTroubles troubles = Make(seconds(300));
  troubles.TellNow(first_, "wrong bytes");
  troubles.TellNow(first_, "wrong bytes");
  EXPECT_THAT(Told(), ElementsAre(Pair(first_, "wrong bytes"), Pair(first_, "wrong bytes")));
  (void)troubles.Met(first_, "away", now_);
  troubles.TellNow(first_, "wrong bytes");
  EXPECT_THAT(troubles.Exhausted(now_ + seconds(300)), ElementsAre(Pair(first_, "wrong bytes")));
}

}  // namespace
}  // namespace fetcher
