#include "fetcher/transfer/retry_policy.h"

#include <gtest/gtest.h>

#include "tests/cachecore/engine/seed.h"

namespace fetcher {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(RetryPolicyTest, DelaysStayBelowABoundThatDoublesUpToTheCap) {
  std::mt19937 random(static_cast<uint32_t>(TestSeed()));
  for (int round = 0; round < 1000; ++round) {
    RetryPolicy policy(milliseconds(10), milliseconds(100), &random);
    for (const int bound_ms : {10, 20, 40, 80, 100, 100, 100}) {
      const Duration delay = policy.NextDelay();
      ASSERT_GT(delay, Duration::zero());
      ASSERT_LE(delay, milliseconds(bound_ms));
    }
  }
}

TEST(RetryPolicyTest, DelaysAreSpreadOverTheWholeInterval) {
  std::mt19937 random(static_cast<uint32_t>(TestSeed()));
  int low = 0;
  for (int i = 0; i < 1000; ++i) {
    RetryPolicy policy(milliseconds(100), seconds(1), &random);
    low += policy.NextDelay() < milliseconds(50);
  }
  EXPECT_GT(low, 400);
  EXPECT_LT(low, 600);
}

TEST(RetryPolicyTest, SuccessStartsFromTheBeginning) {
  std::mt19937 random(static_cast<uint32_t>(TestSeed()));
  RetryPolicy policy(milliseconds(1), seconds(100), &random);
  for (int i = 0; i < 20; ++i) static_cast<void>(policy.NextDelay());
  EXPECT_EQ(policy.failures(), 20);
  policy.Succeeded();
  EXPECT_EQ(policy.failures(), 0);
  EXPECT_LE(policy.NextDelay(), milliseconds(1));
}

TEST(RetryPolicyTest, WhatTheOriginAsksForIsTheLeast) {
  std::mt19937 random(static_cast<uint32_t>(TestSeed()));
  RetryPolicy policy(milliseconds(1), milliseconds(2), &random);
  EXPECT_EQ(policy.NextDelay(seconds(3)), seconds(3));
}

TEST(RetryBudgetTest, RunsFromTheFirstFailure) {
  RetryBudget budget(seconds(10));
  EXPECT_FALSE(budget.Exhausted(seconds(1000)));
  budget.Start(seconds(100));
  budget.Start(seconds(109));
  EXPECT_FALSE(budget.Exhausted(seconds(109)));
  EXPECT_TRUE(budget.Exhausted(seconds(110)));
  EXPECT_EQ(budget.Deadline(), seconds(110));
}

TEST(RetryBudgetTest, ZeroIsForEver) {
  RetryBudget budget(Duration::zero());
  budget.Start(seconds(1));
  EXPECT_FALSE(budget.Exhausted(std::chrono::hours(100'000)));
  EXPECT_EQ(budget.Deadline(), std::nullopt);
}

}  // namespace
}  // namespace fetcher
