#include "fetcher/http/http_patience.h"

#include <gtest/gtest.h>

namespace fetcher {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using Verdict = TransferWatch::Verdict;

TEST(GrowingLimitTest, EachWaitInVainDoublesItUpToMinutes) {
  GrowingLimit limit(seconds(10));
  Duration now = minutes(60);
  Duration last = limit.Get(now);
  EXPECT_EQ(last, seconds(10));
  for (int i = 0; i < 10; ++i) {
    now += last;
    limit.TimedOut(now, last);
    EXPECT_GE(limit.Get(now), last);
    last = limit.Get(now);
  }
  EXPECT_EQ(last, GrowingLimit::kLongest);
}

TEST(GrowingLimitTest, SeveralThatBeganTogetherCountOnce) {
  GrowingLimit limit(seconds(10));
  for (int i = 0; i < 16; ++i) limit.TimedOut(minutes(60), seconds(10));
  EXPECT_EQ(limit.Get(minutes(60)), seconds(20));
}

TEST(GrowingLimitTest, WhatWasNeededIsRememberedAndFastAnswersBetweenDoNotUndoIt) {
  GrowingLimit limit(seconds(10));
  limit.TimedOut(minutes(60), seconds(10));
  limit.Came(minutes(61), seconds(12));
  limit.Came(minutes(62), seconds(0));
  EXPECT_EQ(limit.Get(minutes(70)), seconds(20));
  EXPECT_EQ(limit.Get(minutes(61) + GrowingLimit::kMemory), seconds(10));
}

TEST(TransferWatchTest, TheFirstByteHasALimitFromWhenTheRequestWasSent) {
  TransferWatch watch(1024, seconds(10));
  watch.Begin(seconds(30));
  EXPECT_EQ(watch.Deadline(), std::nullopt);  // Connecting.
  EXPECT_EQ(watch.Judge(seconds(999)), Verdict::kFine);
  watch.Sent(seconds(100));
  watch.Sent(seconds(105));
  EXPECT_EQ(watch.Judge(seconds(129)), Verdict::kFine);
  EXPECT_EQ(watch.Judge(seconds(130)), Verdict::kNoAnswer);
  watch.Begin(seconds(60));
  EXPECT_EQ(watch.Judge(seconds(999)), Verdict::kFine);
}

TEST(TransferWatchTest, OnceBytesFlowTheirRateCounts) {
  TransferWatch watch(1024, seconds(10));
  watch.Begin(seconds(30));
  watch.Sent(seconds(100));
  watch.Bytes(seconds(128), 1);
  EXPECT_EQ(watch.first_byte_took(), seconds(28));
  EXPECT_EQ(watch.Judge(seconds(137)), Verdict::kFine);
  EXPECT_EQ(watch.Judge(seconds(138)), Verdict::kStalled);
  watch.Bytes(seconds(138), 10'240);
  EXPECT_EQ(watch.Judge(seconds(147)), Verdict::kFine);
  watch.Bytes(seconds(147), 5'000);
  EXPECT_EQ(watch.Judge(seconds(148)), Verdict::kStalled);
}

TEST(TransferWatchTest, ARateOfZeroNeverStalls) {
  TransferWatch watch(0, seconds(10));
  watch.Begin(seconds(30));
  watch.Bytes(seconds(1), 1);
  EXPECT_EQ(watch.Deadline(), std::nullopt);
  EXPECT_EQ(watch.Judge(seconds(999)), Verdict::kFine);
}

}  // namespace
}  // namespace fetcher
