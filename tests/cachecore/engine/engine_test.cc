#include "cachecore/engine/engine.h"

#include <gtest/gtest.h>

#include "tests/cachecore/engine/engine_rig.h"

namespace cachecore {
namespace {

constexpr uint64_t kMiB = 1 << 20;

EngineOptions Plain() {
  EngineOptions options;
  options.read_ahead_max = 0;
  return options;
}

EngineOptions Exact() {
  EngineOptions options;
  options.exact = true;
  return options;
}

const wire::ReadMessage& AsRead(const std::optional<Delivery>& delivery) {
  return std::get<wire::ReadMessage>(delivery.value().message);
}
const wire::OpenMessage& AsOpen(const std::optional<Delivery>& delivery) {
  return std::get<wire::OpenMessage>(delivery.value().message);
}

TEST(EngineTest, AReadOfAClosedObjectIsDeliveredAfterItsOpen) {
  EngineRig rig(Plain());
  Object* object = rig.AddKnown(16, kMiB);
  rig.Read(object, {0, 4096});
  EXPECT_FALSE(rig.Select().has_value());  // Starts the reopen, delivers nothing.
  EXPECT_EQ(object->state, ObjectState::kReopening);
  const auto open = rig.Select();
  EXPECT_EQ(AsOpen(open).cookie_key, "object16");
  EXPECT_FALSE(rig.Select().has_value());
  EXPECT_EQ(rig.Copen(AsOpen(open).msg_id, kMiB), 0);
  const auto read = rig.Select();
  EXPECT_EQ(AsRead(read).object_id, AsOpen(open).object_id);
  EXPECT_EQ(AsRead(read).range, (ByteRange{0, 65536}));
  EXPECT_LT(AsRead(read).msg_id, AsOpen(open).msg_id);  // It kept its older id.
}

TEST(EngineTest, AReadThatWaitsForLongIsLoggedEverMoreRarely) {
  EngineRig rig(Plain());
  Object* object = rig.AddKnown(16, kMiB);
  Effects effects;
  rig.engine.Read(object, {4096, 8192}, Duration::zero(), [](const Status&, const auto&) {},
                  &effects, {.thread = 4711});
  rig.Run(std::move(effects));
  rig.Read(object, {8192, 12288});
  for (int second = 0; second < 29; ++second) rig.Advance(std::chrono::seconds(1));
  EXPECT_TRUE(rig.log.empty());
  for (int second = 29; second < 600; ++second) rig.Advance(std::chrono::seconds(1));
  ASSERT_EQ(rig.log.size(), 5u);  // At 30, 60, 120, 240 and 480 s.
  EXPECT_EQ(rig.log[0],
            "object volume/object16 range [4096, 8192): a read by process 4711 has waited 30 s (2 "
            "reads of it wait): nobody answers");
}

TEST(EngineTest, IdsThatComeRoundPassOverThoseInUse) {
  EngineRig rig(Plain());
  Object* first = rig.AddKnown(16, kMiB);
  Object* second = rig.AddKnown(17, kMiB);
  rig.Read(first, {0, 4096});
  rig.Open(first);
  (void)rig.Next();  // Its READ, which stays to be answered.
  rig.next_msg_id = 0;
  rig.next_object_id = 0;
  rig.Read(second, {0, 4096});
  const ObjectId id = rig.Open(second);
  EXPECT_NE(id.value, 0u);
  EXPECT_NE(id, *first->live_id);
  rig.engine.CheckInvariants();
}

TEST(EngineTest, ConcurrentReadsOfOneMissingRangeShareARequest) {
  EngineRig rig(Plain());
  Object* object = rig.AddKnown(16, kMiB);
  for (int i = 0; i < 10; ++i) rig.Read(object, {4096, 8192});
  EXPECT_EQ(rig.engine.requests().size(), 1u);
  rig.Open(object);
  const auto read = rig.Select();
  rig.Fill(object, AsRead(read).range);
  for (const auto& waiter : rig.reads) EXPECT_EQ(waiter.times_ended, 1);
}

TEST(EngineTest, AReadOverSeveralHolesCompletesOnceAfterTheLast) {
  EngineRig rig(Exact());
  Object* object = rig.AddKnown(16, kMiB);
  rig.Fill(object, {4096, 8192});
  rig.Fill(object, {12288, 16384});
  auto* read = rig.Read(object, {0, 20480});
  EXPECT_EQ(rig.engine.requests().size(), 3u);
  const ObjectId id = rig.Open(object);
  std::vector<MsgId> ids;
  for (int i = 0; i < 3; ++i) {
    const auto delivery = rig.Select();
    EXPECT_EQ(read->times_ended, 0);
    ids.push_back(AsRead(delivery).msg_id);
    rig.Fill(object, AsRead(delivery).range);
  }
  EXPECT_EQ(read->times_ended, 1);
  EXPECT_TRUE(read->status.ok());
  for (const MsgId done : ids) EXPECT_EQ(rig.Cread(id, done), 0);
  EXPECT_EQ(read->times_ended, 1);
}

TEST(EngineTest, AReadOverSeveralHolesFailsOnceWithTheFirstError) {
  EngineRig rig(Exact());
  Object* object = rig.AddKnown(16, kMiB);
  rig.Fill(object, {4096, 8192});
  auto* read = rig.Read(object, {0, 12288});
  const ObjectId id = rig.Open(object);
  const MsgId first = AsRead(rig.Select()).msg_id;
  const MsgId second = AsRead(rig.Select()).msg_id;
  EXPECT_EQ(rig.Cread(id, first, EACCES), 0);
  EXPECT_EQ(read->times_ended, 1);
  EXPECT_EQ(read->status.error(), EIO);
  EXPECT_EQ(rig.Cread(id, second), -EINVAL);  // No other read wanted it: withdrawn with its reader.
  EXPECT_EQ(read->times_ended, 1);
}

TEST(EngineTest, CompletionWithoutDataIsEio) {
  EngineRig rig(Plain());
  Object* object = rig.AddKnown(16, kMiB);
  auto* read = rig.Read(object, {0, 4096});
  const ObjectId id = rig.Open(object);
  EXPECT_EQ(rig.Cread(id, AsRead(rig.Select()).msg_id), 0);
  EXPECT_EQ(read->status.error(), EIO);
}

TEST(EngineTest, APartialFillAsksAgainForTheRest) {
  EngineRig rig(Exact());
  Object* object = rig.AddKnown(16, kMiB);
  auto* read = rig.Read(object, {0, 16384});
  const ObjectId id = rig.Open(object);
  const auto first = rig.Select();
  rig.Fill(object, {0, 4096});
  EXPECT_EQ(rig.Cread(id, AsRead(first).msg_id), 0);
  const auto second = rig.Select();
  EXPECT_EQ(AsRead(second).range, (ByteRange{4096, 16384}));
  EXPECT_EQ(read->times_ended, 0);
}

TEST(EngineTest, EachAnswerMustFitItsRequestAndItsObject) {
  EngineRig rig(Plain());
  Object* one = rig.AddKnown(16, kMiB);
  Object* two = rig.AddKnown(17, kMiB);
  auto* read = rig.Read(one, {0, 4096});
  const ObjectId id_one = rig.Open(one);
  const MsgId read_one = AsRead(rig.Next()).msg_id;
  rig.Read(two, {0, 4096});
  const auto open_two = rig.Next();
  const ObjectId id_two = AsOpen(open_two).object_id;
  EXPECT_EQ(rig.Copen(read_one, kMiB), -EINVAL);
  EXPECT_EQ(rig.Cread(id_one, AsOpen(open_two).msg_id), -EINVAL);
  EXPECT_EQ(rig.Cread(id_two, read_one), -EINVAL);
  EXPECT_EQ(rig.Cread(id_one, MsgId{999}), -EINVAL);
  EXPECT_EQ(read->times_ended, 0);
  rig.Fill(one, {0, 65536});
  EXPECT_EQ(rig.Cread(id_one, read_one), 0);
  EXPECT_EQ(rig.Cread(id_one, read_one), -EINVAL);
}

TEST(EngineTest, RestoreAsksOnlyForWhatAnEarlierFetcherLeftMissing) {
  EngineRig rig(Plain());
  Object* object = rig.AddKnown(16, kMiB);
  auto* read = rig.Read(object, {0, 262144});
  rig.Open(object);
  EXPECT_EQ(AsRead(rig.Select()).range, (ByteRange{0, 262144}));
  rig.Fill(object, {0, 65536});
  rig.Fill(object, {131072, 139264});
  rig.Reattach(/*fail=*/false);
  rig.Restore();
  rig.Open(object);
  EXPECT_EQ(AsRead(rig.Select()).range, (ByteRange{65536, 131072}));
  EXPECT_EQ(AsRead(rig.Select()).range, (ByteRange{139264, 262144}));
  EXPECT_FALSE(rig.Select().has_value());
  rig.Fill(object, {65536, 262144});
  EXPECT_EQ(read->times_ended, 1);
  EXPECT_TRUE(read->status.ok());
}

TEST(EngineTest, RestoreByTheFetcherThatHasAReadLeavesItsRangeWhole) {
  EngineRig rig(Plain());
  Object* object = rig.AddKnown(16, kMiB);
  rig.Read(object, {0, 262144});
  rig.Open(object);
  const MsgId id = AsRead(rig.Select()).msg_id;
  rig.Fill(object, {0, 65536});
  rig.Restore();
  const auto again = rig.Select();
  EXPECT_EQ(AsRead(again).msg_id, id);
  EXPECT_EQ(AsRead(again).range, (ByteRange{0, 262144}));
}

TEST(EngineTest, WithoutRestoreADeliveredReadIsNotDeliveredAgain) {
  EngineRig rig(Plain());
  Object* object = rig.AddKnown(16, kMiB);
  auto* read = rig.Read(object, {0, 4096});
  rig.Open(object);
  const MsgId id = AsRead(rig.Select()).msg_id;
  rig.Reattach(/*fail=*/false);
  EXPECT_FALSE(rig.Next().has_value());
  rig.Restore();
  rig.Open(object);
  EXPECT_EQ(AsRead(rig.Select()).msg_id, id);
  rig.Fill(object, {0, 65536});
  EXPECT_TRUE(read->status.ok() && read->times_ended == 1);
}

TEST(EngineTest, AnswersOwedByAnEarlierFetcherAreRefused) {
  EngineRig rig(Plain());
  Object* object = rig.AddKnown(16, kMiB);
  rig.Read(object, {0, 4096});
  const auto open = rig.Next();
  rig.Reattach(false);
  EXPECT_EQ(rig.Copen(AsOpen(open).msg_id, kMiB), -EINVAL);
  rig.Restore();
  EXPECT_EQ(rig.Copen(AsOpen(open).msg_id, kMiB), -EINVAL);  // Pending, and not delivered yet.
  const auto again = rig.Next();
  EXPECT_EQ(AsOpen(again).msg_id, AsOpen(open).msg_id);
  EXPECT_NE(AsOpen(again).object_id, AsOpen(open).object_id);
  EXPECT_EQ(rig.Copen(AsOpen(again).msg_id, kMiB), 0);
  const MsgId read = AsRead(rig.Next()).msg_id;
  EXPECT_EQ(rig.Cread(AsOpen(open).object_id, read), -EINVAL);
}

TEST(EngineTest, PolicyFailEndsEverythingPendingWithEio) {
  EngineRig rig(Plain());
  Object* object = rig.AddKnown(16, kMiB);
  auto* read = rig.Read(object, {0, 4096});
  Status acquired;
  Effects effects;
  rig.engine.Acquire(
      rig.AddUnknown(17), Duration::zero(), [&](const Status& status) { acquired = status; },
      &effects);
  rig.Run(std::move(effects));
  rig.Reattach(/*fail=*/true);
  EXPECT_EQ(read->status.error(), EIO);
  EXPECT_EQ(acquired.error(), EIO);
  EXPECT_EQ(rig.engine.requests().size(), 0u);
}

TEST(EngineTest, AKilledReadersRequestIsWithdrawnUnlessAnotherReadWaits) {
  EngineRig rig(Plain());
  Object* object = rig.AddKnown(16, kMiB);
  auto* one = rig.Read(object, {0, 4096});
  auto* two = rig.Read(object, {0, 4096});
  const ObjectId id = rig.Open(object);
  const MsgId msg_id = AsRead(rig.Select()).msg_id;
  EXPECT_TRUE(rig.Withdraw(one->ticket));
  EXPECT_EQ(one->status.error(), EINTR);
  EXPECT_EQ(rig.engine.requests().size(), 1u);
  EXPECT_TRUE(rig.Withdraw(two->ticket));
  EXPECT_EQ(rig.engine.requests().size(), 0u);
  EXPECT_EQ(rig.Cread(id, msg_id), -EINVAL);
  EXPECT_FALSE(rig.Withdraw(two->ticket));
}

TEST(EngineTest, ARefusedReopenIsTriedThreeTimesAndThenEndsInEio) {
  EngineRig rig(Plain());
  Object* object = rig.AddKnown(16, kMiB);
  auto* read = rig.Read(object, {0, 4096});
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(read->times_ended, 0);
    EXPECT_EQ(rig.Copen(AsOpen(rig.Next()).msg_id, -EACCES), 0);
  }
  EXPECT_EQ(read->status.error(), EIO);
  EXPECT_NE(read->status.message().find("volume/object16"), std::string::npos);
}

TEST(EngineTest, ARefusedObjectsReadAheadEndsWithItsReads) {
  EngineRig rig;
  Object* object = rig.AddKnown(16, 64 * kMiB);
  Effects effects;
  rig.engine.Prefetch(object, {0, 8 * kMiB}, &effects);
  rig.Run(std::move(effects));
  auto* read = rig.Read(object, {32 * kMiB, 32 * kMiB + 1});
  for (int i = 0; i < 3; ++i) rig.Copen(AsOpen(rig.Next()).msg_id, -EACCES);
  EXPECT_EQ(read->status.error(), EIO);
  EXPECT_EQ(rig.engine.requests().size(), 0u);  // Or it would be reopened and refused for ever.
}

TEST(EngineTest, TheReadsOfAClosedInstanceGoToTheNextOne) {
  EngineRig rig(Plain());
  Object* object = rig.AddKnown(16, kMiB);
  auto* read = rig.Read(object, {0, 4096});
  const ObjectId first = rig.Open(object);
  const MsgId id = AsRead(rig.Select()).msg_id;
  EXPECT_EQ(rig.Close(first), 0);
  rig.Open(object);
  EXPECT_EQ(AsRead(rig.Next()).msg_id, id);
  rig.Fill(object, {0, 65536});
  EXPECT_TRUE(read->times_ended == 1 && read->status.ok());
}

TEST(EngineTest, ExactReadsAreWholeBlocks) {
  EngineRig rig(Exact());
  Object* object = rig.AddKnown(16, kMiB);
  rig.Read(object, {100, 200});
  rig.Open(object);
  EXPECT_EQ(AsRead(rig.Select()).range, (ByteRange{0, 4096}));
}

TEST(EngineTest, AnOtherSizeAtReopenIsEioAndMarksTheObjectStale) {
  EngineRig rig(Plain());
  Object* object = rig.AddKnown(16, kMiB);
  auto* read = rig.Read(object, {0, 4096});
  EXPECT_EQ(rig.Copen(AsOpen(rig.Next()).msg_id, kMiB + 1), -ESTALE);
  EXPECT_EQ(read->status.error(), EIO);
  EXPECT_TRUE(object->stale);
}

TEST(EngineTest, CopenAfterTheInstanceWasClosedFailsTheOpenWithEbadfd) {
  EngineRig rig(Plain());
  Object* object = rig.AddUnknown(16);
  Status acquired;
  Effects effects;
  rig.engine.Acquire(
      object, Duration::zero(), [&](const Status& status) { acquired = status; }, &effects);
  rig.Run(std::move(effects));
  const auto open = rig.Next();
  EXPECT_EQ(rig.Close(AsOpen(open).object_id), 0);
  EXPECT_EQ(rig.Copen(AsOpen(open).msg_id, 4096), 0);  // The write succeeds.
  EXPECT_EQ(acquired.error(), EBADFD);
}

TEST(EngineTest, AnOverdueReadEndsWithEioAndOneLogLine) {
  EngineRig rig(Plain());
  Object* object = rig.AddKnown(16, kMiB);
  auto* read = rig.Read(object, {0, 4096}, std::chrono::seconds(5));
  rig.Advance(std::chrono::milliseconds(4999));
  EXPECT_EQ(read->times_ended, 0);
  rig.Advance(std::chrono::milliseconds(1));
  EXPECT_EQ(read->status.error(), EIO);
  ASSERT_EQ(rig.log.size(), 1u);
  EXPECT_EQ(rig.log[0],
            "object volume/object16 range [0, 4096): EIO after 5000 ms without an answer: nobody "
            "answers");
  EXPECT_EQ(rig.engine.requests().size(), 0u);
}

TEST(EngineTest, TheKernelsEchoOfAnOverdueReadEndsAtOnceAndIsNotLogged) {
  EngineRig rig(Plain());
  Object* object = rig.AddKnown(16, kMiB);
  rig.Read(object, {0, 65536}, std::chrono::seconds(5));
  rig.Advance(std::chrono::seconds(5));
  EXPECT_EQ(rig.Read(object, {4096, 8192}, std::chrono::seconds(5))->status.error(), EIO);
  auto* beyond = rig.Read(object, {61440, 69632}, std::chrono::seconds(5));
  EXPECT_EQ(beyond->times_ended, 0);
  EXPECT_EQ(rig.log.size(), 1u);
  rig.Advance(std::chrono::seconds(1));
  EXPECT_EQ(rig.Read(object, {4096, 8192}, std::chrono::seconds(5))->times_ended, 0);
}

TEST(EngineTest, DroppingEndsTheObjectsRequestsAndTellsTheFetcher) {
  EngineRig rig(Plain());
  Object* object = rig.AddKnown(16, kMiB);
  auto* read = rig.Read(object, {0, 4096});
  const ObjectId id = rig.Open(object);
  const MsgId msg_id = AsRead(rig.Select()).msg_id;
  rig.Drop(object);
  EXPECT_EQ(read->status.error(), EIO);
  EXPECT_EQ(rig.Cread(id, msg_id), -EINVAL);
  const auto close = rig.Select();
  EXPECT_EQ(std::get<wire::CloseMessage>(close.value().message).object_id, id);
  EXPECT_EQ(rig.engine.requests().size(), 0u);
}

TEST(EngineTest, ExactModeAsksForTheHolesTheKernelAskedFor) {
  EngineRig rig(Exact());
  Object* object = rig.AddKnown(16, kMiB);
  rig.Fill(object, {8192, 12288});  // 16 KiB wanted, its third page present: 8 KiB, then 4 KiB.
  rig.Read(object, {0, 16384});
  rig.Open(object);
  EXPECT_EQ(AsRead(rig.Select()).range, (ByteRange{0, 8192}));
  EXPECT_EQ(AsRead(rig.Select()).range, (ByteRange{12288, 16384}));
}

TEST(EngineTest, SequentialReadsAreFetchedAheadAndDemandGoesOutFirst) {
  EngineOptions options;
  options.read_ahead_max = 8 * kMiB;
  EngineRig rig(options);
  Object* object = rig.AddKnown(16, 64 * kMiB);
  for (uint64_t at = 0; at < 4 * kMiB; at += 131072) {
    rig.ReadAhead(object, {at, at + 131072});
  }
  EXPECT_GT(rig.engine.requests().size(), 2u);
  rig.Read(object, {60 * kMiB, 60 * kMiB + 4096});
  rig.Open(object);
  const auto demanded = AsRead(rig.Select());
  EXPECT_EQ(demanded.range.begin, 60 * kMiB);
  EXPECT_FALSE(demanded.is_ahead);
  bool has_ahead = false;
  while (const auto next = rig.Select()) has_ahead = has_ahead || AsRead(next).is_ahead;
  EXPECT_TRUE(has_ahead);
}

TEST(EngineTest, AReadClippedAtTheEndWaitsForTheTailOnly) {
  EngineRig rig(Plain());
  Object* object = rig.AddKnown(16, 10000);
  auto* read = rig.Read(object, {8192, 10000});
  rig.Open(object);
  EXPECT_EQ(AsRead(rig.Select()).range, (ByteRange{0, 10000}));
  rig.Fill(object, {8192, 10000});
  EXPECT_TRUE(read->times_ended == 1 && read->status.ok());
}

TEST(EngineTest, WhatIsRemovedWhileItIsSyncedIsNotDurable) {
  EngineRig rig;
  Object* object = rig.AddKnown(17, 1 << 20);
  Effects effects;
  rig.engine.Fill(object, {0, 65536}, &effects);
  EXPECT_EQ(rig.engine.BeginSync(object), (std::vector<ByteRange>{{0, 65536}}));
  EXPECT_FALSE(object->IsIdle());
  rig.engine.RemovePresence(object, {4096, 8192});
  EXPECT_EQ(rig.engine.Synced(*object), (std::vector<ByteRange>{{0, 4096}, {8192, 65536}}));
  // What comes in its place is present, and not on disk yet.
  rig.engine.Fill(object, {4096, 8192}, &effects);
  EXPECT_EQ(rig.engine.Synced(*object), (std::vector<ByteRange>{{0, 4096}, {8192, 65536}}));
  rig.engine.FinishSync(object, /*again=*/false);
  EXPECT_EQ(rig.engine.BeginSync(object), (std::vector<ByteRange>{{4096, 8192}}));
  rig.engine.FinishSync(object, /*again=*/true);
  EXPECT_EQ(object->unsynced_bytes, 4096u);
  EXPECT_EQ(rig.engine.BeginSync(object), (std::vector<ByteRange>{{4096, 8192}}));
}

TEST(EngineTest, EveryOpenThatADiskHasHeldUpIsTriedAgain) {
  EngineRig rig(Plain());
  const auto hold_up = [&](Object* object) {
    rig.Read(object, {0, 4096});
    const auto open = rig.Next();
    Effects effects;
    rig.engine.DeliveryFailed(AsOpen(open).msg_id, Status(ENOSPC, "full"), &effects);
    rig.Run(std::move(effects));
  };
  const auto wakes_device = [&](Duration by) {
    rig.clock.now += by;
    Effects effects;
    rig.engine.Expire("nobody answers", &effects);
    const bool wakes = effects.wake_device;
    rig.Run(std::move(effects));
    return wakes;
  };
  Object* first = rig.AddKnown(16, kMiB);
  Object* second = rig.AddKnown(17, kMiB);
  hold_up(first);
  rig.Advance(std::chrono::milliseconds(300));
  hold_up(second);
  EXPECT_TRUE(wakes_device(std::chrono::milliseconds(700)));
  rig.Open(first);
  rig.Fill(first, {0, kMiB});
  EXPECT_TRUE(wakes_device(std::chrono::milliseconds(300)));
  rig.Open(second);
}

TEST(EngineTest, WhileTheDataFileTakesNoWritesNothingIsFetchedAhead) {
  EngineOptions options;
  EngineRig rig(options);
  Object* object = rig.AddKnown(16, 64 * kMiB);
  for (uint64_t at = 0; at < 4; ++at) rig.ReadAhead(object, ByteRange::At(at * kMiB, kMiB));
  const ObjectId live = rig.Open(object);
  const auto* waiting = rig.Read(object, {63 * kMiB, 63 * kMiB + 4096});
  ASSERT_GT(rig.engine.requests().size(), 1u);
  EXPECT_EQ(rig.Full(live), 0);
  EXPECT_EQ(rig.engine.requests().size(), 1u);  // The one that a read waits for.
  EXPECT_EQ(waiting->times_ended, 0);
  rig.ReadAhead(object, ByteRange::At(4 * kMiB, kMiB));
  EXPECT_EQ(rig.engine.requests().size(), 1u);
  rig.Fill(object, {63 * kMiB, 64 * kMiB});
  rig.ReadAhead(object, ByteRange::At(5 * kMiB, kMiB));
  EXPECT_GT(rig.engine.requests().size(), 1u);
}

}  // namespace
}  // namespace cachecore
