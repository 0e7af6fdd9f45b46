// What a device like the kernel's needs of the engine beyond the ranges of `exact`.

#include <gtest/gtest.h>

#include "engine_rig.h"

namespace cachecore {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr size_t kOpenSize = 32 + sizeof("volume") + 8;  // The cookie is "object16".

EngineOptions Kernel() {
  EngineOptions options;
  options.read_ahead_max = 0;
  options.exact = true;
  options.kernel_instances = true;
  return options;
}

std::optional<Delivery> SelectWithin(EngineRig* rig, size_t room, int* failure) {
  *failure = 0;
  Effects effects;
  auto delivery = rig->engine.Select(&effects, room, failure);
  rig->Run(std::move(effects));
  return delivery;
}

TEST(EngineKernelTest, AMessageThatDoesNotFitStaysNew) {
  EngineRig rig(Kernel());
  Object* object = rig.AddKnown(16, kMiB);
  rig.Read(object, {0, 4096});
  int failure = 0;
  EXPECT_FALSE(SelectWithin(&rig, 0, &failure));
  EXPECT_EQ(failure, 0) << "the READ's object was closed: nothing was chosen";
  EXPECT_EQ(object->state, ObjectState::kReopening);
  EXPECT_FALSE(SelectWithin(&rig, kOpenSize - 1, &failure));
  EXPECT_EQ(failure, EMSGSIZE);
  EXPECT_FALSE(object->live_id);
  const auto open = SelectWithin(&rig, kOpenSize, &failure);
  ASSERT_TRUE(open);
  EXPECT_EQ(wire::EncodeMessage(open->message, 0).size(), kOpenSize);
  EXPECT_EQ(rig.Copen(std::get<wire::OpenMessage>(open->message).msg_id, kMiB), 0);
  EXPECT_FALSE(SelectWithin(&rig, 31, &failure));
  EXPECT_EQ(failure, EMSGSIZE);
  EXPECT_TRUE(SelectWithin(&rig, 32, &failure));
}

TEST(EngineKernelTest, AnObjectIsUsedWhenItsAcquisitionEnds) {
  EngineRig rig(Kernel());
  Object* object = rig.AddUnknown(16);
  EXPECT_EQ(rig.engine.tick(), rig.clock.now);
  Effects effects;
  rig.engine.Acquire(
      object, Duration::zero(), [](const Status&) {}, &effects);
  rig.Run(std::move(effects));
  rig.Advance(std::chrono::seconds(60));
  const auto open = rig.Next();
  EXPECT_EQ(rig.Copen(std::get<wire::OpenMessage>(open.value().message).msg_id, kMiB), 0);
  EXPECT_EQ(object->used, rig.clock.now);
}

TEST(EngineKernelTest, ACloseHasAHeaderOnly) {
  EngineRig rig(Kernel());
  Object* object = rig.AddKnown(16, kMiB);
  rig.Read(object, {0, 4096});
  (void)rig.Open(object);
  rig.Drop(object);
  int failure = 0;
  EXPECT_FALSE(SelectWithin(&rig, 15, &failure));
  EXPECT_EQ(failure, EMSGSIZE);
  const auto close = SelectWithin(&rig, 16, &failure);
  ASSERT_TRUE(close);
  EXPECT_TRUE(std::holds_alternative<wire::CloseMessage>(close->message));
}

TEST(EngineKernelTest, ReadableIsWhatTheKernelsPollSays) {
  EngineRig rig(Kernel());
  Object* object = rig.AddKnown(16, kMiB);
  EXPECT_FALSE(rig.engine.IsReadable());
  rig.Read(object, {0, 4096});
  EXPECT_TRUE(rig.engine.IsReadable()) << "a READ of a closed object";
  rig.hold_journal = true;  // The OPEN is made, and not queued yet.
  EXPECT_FALSE(rig.Select());
  EXPECT_FALSE(rig.engine.IsReadable()) << "a READ of an object that is being reopened";
  rig.hold_journal = false;
  rig.JournalOne();
  EXPECT_TRUE(rig.engine.IsReadable()) << "a new OPEN";
  const auto open = rig.Select();
  EXPECT_FALSE(rig.engine.IsReadable()) << "an OPEN that was delivered";
  EXPECT_EQ(rig.Copen(std::get<wire::OpenMessage>(open.value().message).msg_id, kMiB), 0);
  EXPECT_TRUE(rig.engine.IsReadable()) << "the READ of the object that is open now";
  EXPECT_TRUE(rig.Select());
  EXPECT_FALSE(rig.engine.IsReadable()) << "a READ that was delivered";
  rig.Restore();
  EXPECT_TRUE(rig.engine.IsReadable()) << "restored";
}

TEST(EngineKernelTest, AReadThatAClosedInstanceHadWaitsForRestore) {
  EngineRig rig(Kernel());
  Object* object = rig.AddKnown(16, kMiB);
  EngineRig::ReadState* waiting = rig.Read(object, {0, 4096});
  const ObjectId first = rig.Open(object);
  const MsgId read = std::get<wire::ReadMessage>(rig.Select().value().message).msg_id;
  EXPECT_EQ(rig.Close(first), 0);
  EXPECT_FALSE(rig.engine.IsReadable());
  EXPECT_FALSE(rig.Next());
  rig.Restore();
  EXPECT_TRUE(rig.engine.IsReadable());
  const ObjectId second = rig.Open(object);
  EXPECT_NE(first, second);
  EXPECT_EQ(std::get<wire::ReadMessage>(rig.Select().value().message).msg_id, read);
  rig.Fill(object, {0, 4096});
  EXPECT_EQ(rig.Cread(second, read), 0);
  EXPECT_EQ(waiting->times_ended, 1);
  EXPECT_TRUE(waiting->status.ok());
  rig.engine.CheckInvariants();
}

TEST(EngineKernelTest, ALaterInstanceMayCompleteAReadOfAnEarlierOne) {
  EngineRig rig(Kernel());
  Object* object = rig.AddKnown(16, kMiB);
  rig.Read(object, {0, 4096});
  const ObjectId first = rig.Open(object);
  const MsgId read = std::get<wire::ReadMessage>(rig.Select().value().message).msg_id;
  EXPECT_EQ(rig.Close(first), 0);
  rig.Read(object, {8192, 12288});  // Reopens the object, without `restore`.
  const ObjectId second = rig.Open(object);
  EXPECT_EQ(rig.Cread(first, read), -EINVAL);
  rig.Fill(object, {0, 4096});
  EXPECT_EQ(rig.Cread(second, read), 0);
  EXPECT_EQ(rig.Cread(second, read), -EINVAL);
}

TEST(EngineKernelTest, AnOpenThatIsReplayedWhileItsInstanceLivesFails) {
  EngineRig rig(Kernel());
  Object* object = rig.AddKnown(16, kMiB);
  EngineRig::ReadState* waiting = rig.Read(object, {0, 4096});
  const auto open = rig.Next();
  rig.Restore();
  EXPECT_TRUE(rig.engine.IsReadable());
  int failure = 0;
  EXPECT_FALSE(SelectWithin(&rig, 1024, &failure));
  EXPECT_EQ(failure, EEXIST);
  EXPECT_EQ(rig.Copen(std::get<wire::OpenMessage>(open.value().message).msg_id, kMiB), -EINVAL);
  rig.engine.CheckInvariants();
  (void)rig.Open(object);  // The READ asks for an OPEN again.
  EXPECT_TRUE(std::holds_alternative<wire::ReadMessage>(rig.Select().value().message));
  EXPECT_EQ(waiting->times_ended, 0);
}

TEST(EngineKernelTest, WhatAnEarlierLifeHasGivenIsPutBack) {
  EngineRig rig(Kernel());
  const auto resume = [&rig](Object* object, std::optional<ObjectId> live,
                             const std::vector<KeptRequest>& requests) {
    Effects effects;
    rig.engine.Resume(object, live, requests, &effects);
    rig.Run(std::move(effects));
    rig.engine.CheckInvariants();
  };
  Object* open = rig.AddKnown(16, kMiB);
  resume(open, ObjectId{7},
         {{{900}, wire::Opcode::kRead, {0, 4096}, false},
          {{901}, wire::Opcode::kRead, {8192, 12288}, true}});
  EXPECT_EQ(open->state, ObjectState::kOpen);
  Object* reopening = rig.AddKnown(17, kMiB);
  resume(reopening, ObjectId{8}, {{{902}, wire::Opcode::kOpen, {}, false}});
  EXPECT_EQ(reopening->state, ObjectState::kReopening);
  Object* closed = rig.AddKnown(18, kMiB);
  resume(closed, std::nullopt, {{{903}, wire::Opcode::kRead, {0, 4096}, false}});
  EXPECT_EQ(closed->state, ObjectState::kClose);
  Object* refused = rig.AddUnknown(19);
  resume(refused, ObjectId{9}, {});
  EXPECT_EQ(rig.engine.FindLive({9}), nullptr);

  EngineRig::ReadState* waiting = rig.Read(open, {0, 4096});
  const auto again = rig.Select();
  EXPECT_EQ(std::get<wire::ReadMessage>(again.value().message).msg_id, MsgId{901});
  EXPECT_FALSE(rig.Select()) << "the rest has been given";
  rig.Fill(open, {0, 4096});
  EXPECT_EQ(waiting->times_ended, 1);
  EXPECT_EQ(rig.Cread({7}, {900}), 0);
  EXPECT_EQ(rig.Copen({902}, kMiB), 0);
  EXPECT_EQ(rig.engine.TakeEnded(), (std::vector<MsgId>{{900}, {902}}));
  rig.engine.CheckInvariants();
}

}  // namespace
}  // namespace cachecore
