// What a device like the kernel's asks of the Cache beyond what the socket asks.

#include <gtest/gtest.h>

#include <cerrno>
#include <optional>

#include "cache_rig.h"

namespace cachecore {
namespace {

constexpr uint64_t kSize = 65536 + 100;

TEST(CacheKernelTest, AMessageThatDoesNotFitIsGivenLater) {
  CacheRig rig;
  const ObjectNumber volume = *rig.cache->AddVolume("volume");
  EXPECT_FALSE(rig.cache->device().HasMessage());
  (void)rig.cache->Acquire({volume, "volume"}, "object", {}, Freshness::kKnown,
                           [](const Result<ObjectInfo>&) {});
  EXPECT_TRUE(rig.cache->device().HasMessage());
  int failure = 0;
  EXPECT_FALSE(rig.cache->device().NextMessage(44, &failure));
  EXPECT_EQ(failure, EMSGSIZE);
  EXPECT_TRUE(rig.cache->device().HasMessage());
  failure = 0;
  const auto message = rig.cache->device().NextMessage(45, &failure);
  EXPECT_EQ(failure, 0);
  ASSERT_TRUE(message);
  EXPECT_TRUE(message->data_fd.valid());
  EXPECT_FALSE(rig.cache->device().HasMessage());
}

TEST(CacheKernelTest, AnObjectThatWasJustAcquiredIsNotEnded) {
  CacheRig rig;
  ASSERT_TRUE(rig.Acquire(kSize).ok());
  rig.cache->Expire();  // The first of this life.
  rig.cache->EndUnwanted([](const auto&, const auto&) { return false; },
                         [](pid_t) { return false; });
  EXPECT_FALSE(rig.cache->device().HasMessage()) << "no CLOSE";
}

TEST(CacheKernelTest, AnOpenThatDidNotReachTheFetcherFails) {
  CacheRig rig;
  const ObjectNumber volume = *rig.cache->AddVolume("volume");
  std::optional<Result<ObjectInfo>> answer;
  (void)rig.cache->Acquire({volume, "volume"}, "object", {}, Freshness::kKnown,
                           [&](const Result<ObjectInfo>& info) { answer.emplace(info); });
  const auto open = rig.NextOpen();
  ASSERT_TRUE(open);
  rig.cache->device().FailOpen(open->msg_id, Status(EMFILE, "no descriptor is free"));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status().error(), EMFILE);
  EXPECT_EQ(rig.Execute(wire::CopenCommand{open->msg_id, 5, 0}), -EINVAL);
  EXPECT_TRUE(rig.Acquire(kSize).ok());
}

TEST(CacheKernelTest, PresenceIsFoundInALiveObject) {
  CacheRig rig;
  ASSERT_TRUE(rig.Acquire(kSize).ok());
  rig.Write({4096, 12288}, 'x');
  EXPECT_EQ(rig.Execute(wire::FilledCommand{rig.live, {4096, 12288}}), 0);
  EXPECT_EQ(*rig.cache->device().FindPresence(rig.live, 0, true), 4096u);
  EXPECT_EQ(*rig.cache->device().FindPresence(rig.live, 4096, false), 12288u);
  EXPECT_EQ(*rig.cache->device().FindPresence(rig.live, 12288, true), kSize);
  EXPECT_EQ(*rig.cache->device().FindPresence(rig.live, kSize + 1, true), kSize);
  EXPECT_EQ(rig.cache->device().FindPresence({rig.live.value + 1}, 0, true).status().error(),
            EINVAL);
}

TEST(CacheKernelTest, PresenceCountsWithoutAnInstanceAndInTheNextLife) {
  CacheRig rig;
  const Result<ObjectInfo> info = rig.Acquire(kSize);
  ASSERT_TRUE(info.ok());
  rig.Write({0, kSize}, 'x');
  rig.cache->device().Detach();
  EXPECT_TRUE(rig.cache->device().AddPresence(info->number, {0, 8192 + 5}).ok());
  EXPECT_TRUE(rig.IsPresent(info->number, {0, 8192}));
  EXPECT_FALSE(rig.IsPresent(info->number, {8192, 12288})) << "a block of which a part is there";
  EXPECT_EQ(rig.cache->device().AddPresence(info->number, {0, kSize + 1}).error(), EINVAL);
  EXPECT_FALSE(rig.cache->device().AddPresence({4711}, {0, 4096}).ok());
  rig.Reopen();
  EXPECT_TRUE(rig.IsPresent(info->number, {0, 8192}));
  EXPECT_TRUE(rig.cache->device().AddPresence(info->number, {65536, kSize}).ok())
      << "loaded for it";
  EXPECT_TRUE(rig.IsPresent(info->number, {65536, kSize}));
}

CacheOptions KernelOptions() {
  CacheOptions options;
  options.engine.exact = true;
  options.engine.kernel_instances = true;
  return options;
}

// Acquires for a mount; nullopt while the fetcher is asked.
std::optional<Result<ObjectInfo>> AcquireForMount(CacheRig* rig, uint64_t size) {
  const ObjectNumber volume = *rig->cache->AddVolume("volume");
  std::optional<Result<ObjectInfo>> answer;
  (void)rig->cache->Acquire({volume, "volume"}, "object", {}, Freshness::kAsk,
                            [&](const Result<ObjectInfo>& info) { answer.emplace(info); });
  if (!answer) rig->live = rig->AnswerOpen(size);
  return answer;
}

TEST(CacheKernelTest, AnObjectThatIsNotUsedAnyMoreIsClosedAndAskedForAgain) {
  CacheRig rig(KernelOptions());
  const Result<ObjectInfo> info = rig.Acquire(kSize);
  ASSERT_TRUE(info.ok());
  const ObjectId first = rig.live;
  rig.Write({0, 4096}, 'x');
  bool is_read = false;
  (void)rig.cache->Read(info->number, {0, 4096},
                        [&](const Status& status, const FileSlice&) { is_read = status.ok(); });
  const auto read = rig.NextRead();
  ASSERT_TRUE(read);
  EXPECT_EQ(rig.Execute(wire::FilledCommand{first, {0, 4096}}), 0);
  EXPECT_TRUE(is_read);
  EXPECT_FALSE(rig.cache->Close("volume", "object")) << "the READ is not answered yet";
  EXPECT_FALSE(rig.cache->device().HasMessage());
  EXPECT_EQ(rig.Execute(wire::CreadCommand{first, read->msg_id, 0}), 0);
  EXPECT_TRUE(rig.cache->Close("volume", "object"));
  const auto message = rig.cache->device().NextMessage();
  ASSERT_TRUE(message);
  ASSERT_TRUE(std::holds_alternative<wire::CloseMessage>(message->message));
  EXPECT_EQ(std::get<wire::CloseMessage>(message->message).object_id, first);
  EXPECT_EQ(rig.Execute(wire::FilledCommand{first, {4096, 8192}}), -EINVAL);
  const auto again = AcquireForMount(&rig, kSize);
  ASSERT_TRUE(again && again->ok());
  EXPECT_EQ((*again)->number, info->number);
  EXPECT_NE(rig.live, first);
  EXPECT_TRUE(rig.IsPresent(info->number, {0, 4096})) << "what was fetched is kept";
  EXPECT_FALSE(rig.cache->device().HasMessage());
  EXPECT_TRUE(AcquireForMount(&rig, kSize)->ok()) << "it is open";
  EXPECT_FALSE(rig.cache->device().HasMessage());
}

TEST(CacheKernelTest, ARefusedOpenFailsTheMountOfAKnownObject) {
  CacheRig rig(KernelOptions());
  ASSERT_TRUE(rig.Acquire(kSize).ok());
  EXPECT_TRUE(rig.cache->Close("volume", "object"));
  ASSERT_TRUE(rig.cache->device().NextMessage());
  const ObjectNumber volume = *rig.cache->AddVolume("volume");
  std::optional<Result<ObjectInfo>> answer;
  (void)rig.cache->Acquire({volume, "volume"}, "object", {}, Freshness::kAsk,
                           [&](const Result<ObjectInfo>& info) { answer.emplace(info); });
  const auto open = rig.NextOpen();
  ASSERT_TRUE(open);
  EXPECT_EQ(rig.Execute(wire::CopenCommand{open->msg_id, -ENOENT, 0}), 0);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status().error(), ENOENT);
  EXPECT_TRUE(AcquireForMount(&rig, kSize)->ok());
}

// The failure is the answer to that read of the device: a message given beside it would be lost.
TEST(CacheKernelTest, AnOpenThatFailsAtItsDeliveryTakesNoOtherMessageWithIt) {
  CacheRig rig(KernelOptions());
  const Result<ObjectInfo> info = rig.Acquire(kSize);
  ASSERT_TRUE(info.ok());
  std::optional<Result<ObjectInfo>> answer;
  (void)rig.cache->Acquire({*rig.cache->AddVolume("volume"), "volume"}, "other", {},
                           Freshness::kKnown,
                           [&](const Result<ObjectInfo>& other) { answer.emplace(other); });
  ASSERT_TRUE(rig.NextOpen());
  EXPECT_EQ(rig.Execute(wire::CloseCommand{rig.live}), 0);
  (void)rig.cache->Read(info->number, {0, 4096}, [](const Status&, const FileSlice&) {});
  EXPECT_EQ(rig.Execute(wire::RestoreCommand{}), 0);
  // The choice has the closed object reopened, then meets the OPEN of one that is open.
  int failure = 0;
  EXPECT_FALSE(rig.cache->device().NextMessage(SIZE_MAX, &failure));
  EXPECT_EQ(failure, EEXIST);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status().error(), EEXIST);
  EXPECT_TRUE(rig.cache->device().HasMessage());
  const auto reopen = rig.NextOpen();
  ASSERT_TRUE(reopen) << "the OPEN was lost";
  EXPECT_EQ(reopen->cookie_key, "object");
}

TEST(CacheKernelTest, ADroppedObjectIsFetchedAgain) {
  CacheRig rig(KernelOptions());
  const Result<ObjectInfo> info = rig.Acquire(kSize);
  ASSERT_TRUE(info.ok());
  EXPECT_EQ((*rig.cache->Find("volume", "object"))->number, info->number);
  EXPECT_FALSE(*rig.cache->Find("volume", "other"));
  EXPECT_FALSE(*rig.cache->Find("other", "object"));
  EXPECT_TRUE(rig.cache->Drop(info->number, "for the test").ok());
  EXPECT_FALSE(*rig.cache->Find("volume", "object"));
  EXPECT_EQ(rig.cache->Drop(info->number, "for the test").error(), ESTALE);
  ASSERT_TRUE(rig.cache->device().NextMessage()) << "its CLOSE";
  const auto again = AcquireForMount(&rig, kSize);
  ASSERT_TRUE(again && again->ok());
  EXPECT_NE((*again)->number, info->number);
}

}  // namespace
}  // namespace cachecore
