// What Engine::Trace says of reads that wait and have waited.

#include <gtest/gtest.h>

#include <cerrno>

#include "engine_rig.h"

namespace cachecore {
namespace {

constexpr uint64_t kTraceSize = 64 << 20;
constexpr Duration kLimit = std::chrono::milliseconds(200);

EngineOptions BlocksAlone() {
  EngineOptions options;
  options.fetch_size = 4096;
  options.read_ahead_max = 0;
  return options;
}

class EngineTraceTest : public ::testing::Test {
 protected:
  EngineTraceTest() : rig_(BlocksAlone()), object_(rig_.AddKnown(16, kTraceSize)) {}

  void Advance(Duration time) { rig_.clock.now += time; }
  TraceAnswer Ask() {
    TraceAnswer answer = rig_.engine.Trace(next_);
    next_.after = answer.last;
    next_.since = answer.now;
    return answer;
  }

  EngineRig rig_;
  Object* object_;
  TraceQuestion next_{.over = kLimit};
};

TEST_F(EngineTraceTest, AReadIsGivenWhenItReachesTheLimitOnceAndWhenItEnds) {
  rig_.Read(object_, {4096, 8192});
  EXPECT_TRUE(Ask().waiting.empty());
  Advance(kLimit);
  const TraceAnswer waits = Ask();
  ASSERT_EQ(waits.waiting.size(), 1u);
  EXPECT_EQ(waits.waiting[0].range, (ByteRange{4096, 8192}));
  EXPECT_EQ(waits.waiting[0].waited, kLimit);
  EXPECT_EQ(waits.waiting[0].cookie_key, "object16");
  Advance(kLimit);
  EXPECT_TRUE(Ask().waiting.empty()) << "it is shown once";
  rig_.Fill(object_, {4096, 8192});
  const TraceAnswer ends = Ask();
  ASSERT_EQ(ends.ended.size(), 1u);
  EXPECT_EQ(ends.ended[0].waited, 2 * kLimit);
  EXPECT_EQ(ends.ended[0].error, 0);
  EXPECT_TRUE(Ask().ended.empty());
}

TEST_F(EngineTraceTest, WhatIsFasterAndWhatIsPresentIsNotGiven) {
  rig_.Read(object_, {4096, 8192});
  Advance(kLimit - Duration(1));
  rig_.Fill(object_, {4096, 8192});
  EXPECT_TRUE(Ask().ended.empty());
}

TEST_F(EngineTraceTest, TheCauseIsTheFetchersOwnAlsoOfARequestThatHasEnded) {
  rig_.Read(object_, {0, 8192});
  rig_.Open(object_);
  const auto first = std::get<wire::ReadMessage>(rig_.Next().value().message);
  EXPECT_EQ(rig_.engine.SetCause({first.msg_id, "connection refused"}), 0);
  Advance(kLimit);
  EXPECT_EQ(Ask().waiting.at(0).why, "connection refused");
  rig_.Fill(object_, {0, 4096});
  rig_.Fill(object_, {4096, 8192});
  EXPECT_EQ(Ask().ended.at(0).why, "connection refused");
}

TEST_F(EngineTraceTest, WithoutACauseTheStateOfTheFetcherSaysWhy) {
  rig_.Read(object_, {0, 4096});
  Advance(kLimit);
  EXPECT_EQ(Ask().waiting.at(0).why, "the fetcher has not taken its request yet");
  rig_.Open(object_);
  rig_.Next();
  next_.since = Duration(0);
  EXPECT_NE(Ask().waiting.at(0).why.find("the origin is slow"), std::string::npos);
  rig_.engine.NoteDeath();
  next_.since = Duration(0);
  EXPECT_EQ(Ask().waiting.at(0).why, "no fetcher is attached");
  Effects effects;
  rig_.engine.Detach(/*fail=*/false, &effects);
  next_.since = Duration(0);
  EXPECT_EQ(Ask().waiting.at(0).why, "no fetcher is attached");
  Advance(kLimit);
  rig_.engine.Attach(Generation{2});
  rig_.Fill(object_, {0, 4096});
  EXPECT_EQ(Ask().ended.at(0).why, "no fetcher was attached for its first 400 ms");
}

TEST_F(EngineTraceTest, AReadThatFailsSaysWithWhichErrorAndWhy) {
  EngineRig::ReadState* read = rig_.Read(object_, {0, 4096});
  Advance(kLimit);
  Effects effects;
  EXPECT_TRUE(rig_.engine.Withdraw(read->ticket, Status(EINTR, "it was killed"), &effects));
  const TraceAnswer answer = Ask();
  EXPECT_EQ(answer.ended.at(0).error, EINTR);
  EXPECT_EQ(answer.ended.at(0).why, "it was killed");
}

TEST_F(EngineTraceTest, AnObjectsHistoryHasWhatWasReadFetchedAndTakenOut) {
  const ByteRange range{4096, 8192};
  rig_.Read(object_, {5000, 5001});
  const ObjectId live = rig_.Open(object_);
  const auto read = std::get<wire::ReadMessage>(rig_.Next().value().message);
  Advance(kLimit);
  rig_.Fill(object_, range);
  EXPECT_EQ(rig_.Cread(live, read.msg_id), 0);
  ObjectHistory history = rig_.engine.HistoryOf(*object_);
  EXPECT_EQ(history.present, std::vector<ByteRange>{range});
  EXPECT_EQ(history.read, std::vector<ByteRange>{range}) << "whole blocks";
  ASSERT_EQ(history.fetches.size(), 1u);
  EXPECT_TRUE(history.fetches[0].demanded);
  EXPECT_EQ(history.fetches[0].filled_bytes, range.size());
  EXPECT_EQ(history.fetches[0].took, kLimit);
  EXPECT_EQ(history.ended.size(), 1u);
  ASSERT_TRUE(rig_.BeginCull(object_, range));
  rig_.EndCull(object_);
  history = rig_.engine.HistoryOf(*object_);
  EXPECT_TRUE(history.present.empty());
  EXPECT_EQ(history.culled, std::vector<ByteRange>{range});
  rig_.Fill(object_, range);
  EXPECT_TRUE(rig_.engine.HistoryOf(*object_).culled.empty());
}

TEST_F(EngineTraceTest, AFollowerThatIsTooSlowIsToldHowMuchItHasLost) {
  next_.over = Duration(0);
  for (uint64_t i = 0; i < ReadHistory::kMaxReads + 10; ++i) {
    rig_.Read(object_, ByteRange::At(i * 4096, 4096));
    rig_.Fill(object_, ByteRange::At(i * 4096, 4096));
  }
  next_.max = 1000;
  TraceAnswer answer = Ask();
  EXPECT_EQ(answer.lost, 10u);
  size_t given = answer.ended.size();
  while (!answer.is_all) {
    answer = Ask();
    EXPECT_EQ(answer.lost, 0u);
    given += answer.ended.size();
  }
  EXPECT_EQ(given, ReadHistory::kMaxReads);
}

}  // namespace
}  // namespace cachecore
