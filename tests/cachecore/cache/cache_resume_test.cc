// The device of a program that outlives the daemon: what it was given is put back in the next life.

#include <gtest/gtest.h>

#include <cerrno>
#include <optional>
#include <vector>

#include "cache_rig.h"

namespace cachecore {
namespace {

constexpr uint64_t kSize = 65536;

class CacheResumeTest : public ::testing::Test {
 protected:
  static CacheOptions Kernel() {
    CacheOptions options;
    options.engine.exact = true;
    options.engine.kernel_instances = true;
    return options;
  }

  // A read whose end is counted.
  void Read(ObjectNumber number, ByteRange range) {
    rig_.cache->Read(number, range, [this](const Status& status, const FileSlice&) {
      ++ended_;
      last_ = status;
    });
  }
  // The next life, with what its predecessor's program has.
  void Resume(const std::vector<KeptObject>& kept) {
    rig_.Reopen();
    ASSERT_TRUE(rig_.cache->device().ResumeDevice(kept).ok());
  }
  static KeptRequest Of(const wire::ReadMessage& read) {
    return {read.msg_id, wire::Opcode::kRead, read.range, false};
  }
  void Fill(ObjectId live, ByteRange range) {
    rig_.Write(range, 'x');
    ASSERT_EQ(rig_.Execute(wire::FilledCommand{live, range}), 0);
  }
  int Complete(ObjectId live, MsgId id) { return rig_.Execute(wire::CreadCommand{live, id, 0}); }

  CacheRig rig_{Kernel()};
  int ended_ = 0;
  Status last_;
};

TEST_F(CacheResumeTest, AReadIsCompletedByItsOldId) {
  const Result<ObjectInfo> info = rig_.Acquire(kSize);
  const ObjectId live = rig_.live;
  Read(info->number, {0, 8192});
  const wire::ReadMessage read = rig_.NextRead().value();
  Resume({{info->number, live, {Of(read)}, "", "", std::nullopt, false}});
  EXPECT_FALSE(rig_.cache->device().HasMessage());
  ended_ = 0;
  Read(info->number, {0, 8192});
  EXPECT_FALSE(rig_.cache->device().HasMessage()) << "it joins the READ that the program has";
  EXPECT_TRUE(rig_.cache->device().IsLive(live));
  Fill(live, read.range);
  EXPECT_EQ(ended_, 1);
  EXPECT_EQ(Complete(live, read.msg_id), 0);
  EXPECT_EQ(rig_.cache->device().TakeEnded(), std::vector<MsgId>{read.msg_id});
  EXPECT_EQ(Complete(live, read.msg_id), -EINVAL);
  EXPECT_TRUE(last_.ok());
}

TEST_F(CacheResumeTest, WhatTheLastLifeHasFilledCountsAsProgress) {
  const Result<ObjectInfo> info = rig_.Acquire(kSize);
  const ObjectId live = rig_.live;
  Read(info->number, {0, 8192});
  const wire::ReadMessage read = rig_.NextRead().value();
  Fill(live, {0, 4096});
  Resume({{info->number, live, {Of(read)}, "", "", std::nullopt, false}});
  ended_ = 0;
  Read(info->number, {0, 8192});
  EXPECT_EQ(Complete(live, read.msg_id), 0);
  EXPECT_EQ(ended_, 0) << "the rest is asked for once more";
  EXPECT_EQ(rig_.NextRead().value().range, (ByteRange{4096, 8192}));
}

TEST_F(CacheResumeTest, AReadWaitsForRestoreWhereItsInstanceWasClosed) {
  const Result<ObjectInfo> info = rig_.Acquire(kSize);
  Read(info->number, {0, 8192});
  const wire::ReadMessage read = rig_.NextRead().value();
  Resume({{info->number, std::nullopt, {Of(read)}, "", "", std::nullopt, false}});
  EXPECT_FALSE(rig_.NextRead());
  EXPECT_EQ(rig_.Execute(wire::RestoreCommand{}), 0);
  const ObjectId live = rig_.AnswerOpen(kSize);
  EXPECT_EQ(rig_.NextRead().value().msg_id, read.msg_id);
  Fill(live, read.range);
  EXPECT_EQ(Complete(live, read.msg_id), 0);
}

TEST_F(CacheResumeTest, AMarkedReadComesAgain) {
  const Result<ObjectInfo> info = rig_.Acquire(kSize);
  const ObjectId live = rig_.live;
  Read(info->number, {0, 8192});
  KeptRequest kept = Of(rig_.NextRead().value());
  kept.is_new = true;
  Resume({{info->number, live, {kept}, "", "", std::nullopt, false}});
  EXPECT_TRUE(rig_.cache->device().HasMessage());
  EXPECT_EQ(rig_.NextRead().value().msg_id, kept.id);
}

TEST_F(CacheResumeTest, AnOpenIsAnsweredByItsOldId) {
  const ObjectNumber volume = *rig_.cache->AddVolume("volume");
  const auto acquire = [&](std::optional<Result<ObjectInfo>>* answer) {
    (void)rig_.cache->Acquire({volume, "volume"}, "object", {}, Freshness::kKnown,
                              [answer](const Result<ObjectInfo>& info) { answer->emplace(info); });
  };
  std::optional<Result<ObjectInfo>> lost;
  acquire(&lost);
  auto message = rig_.cache->device().NextMessage();
  const auto open = std::get<wire::OpenMessage>(message->message);
  Resume({{message->object,
           open.object_id,
           {{open.msg_id, wire::Opcode::kOpen, {}, false}},
           open.volume_key,
           open.cookie_key,
           std::nullopt,
           false}});
  std::optional<Result<ObjectInfo>> answer;
  acquire(&answer);
  EXPECT_FALSE(rig_.cache->device().HasMessage()) << "it joins the OPEN that the program has";
  EXPECT_EQ(rig_.Execute(wire::CopenCommand{open.msg_id, kSize, 0}), 0);
  ASSERT_TRUE(answer);
  EXPECT_EQ((*answer)->number, message->object);
  EXPECT_EQ((*answer)->size_bytes, kSize);
  EXPECT_TRUE(rig_.cache->device().IsLive(open.object_id));
  EXPECT_EQ(rig_.Execute(wire::CopenCommand{open.msg_id, kSize, 0}), -EINVAL);
}

TEST_F(CacheResumeTest, AnInstanceOfAForgottenObjectIsToldToClose) {
  Resume({{{4711}, ObjectId{12}, {}, "", "", std::nullopt, false}});
  EXPECT_FALSE(rig_.cache->device().IsLive({12}));
  const auto message = rig_.cache->device().NextMessage();
  ASSERT_TRUE(message);
  EXPECT_EQ(std::get<wire::CloseMessage>(message->message).object_id, ObjectId{12});
}

}  // namespace
}  // namespace cachecore
