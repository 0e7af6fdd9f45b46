// Cache: what becomes of an object whose origin may have another version.

#include <gtest/gtest.h>

#include "tests/cachecore/cache/cache_rig.h"
#include "tests/cachecore/store/forwarding_store.h"

namespace cachecore {
namespace {

constexpr uint64_t kMiB = 1 << 20;

// An object that was seen to have changed, with its first block present.
ObjectInfo StaleObject(CacheRig* rig) {
  rig->attr_of_open = "one";
  const ObjectInfo object = *rig->Acquire(kMiB);
  rig->Execute(wire::FilledCommand{rig->live, {0, 4096}});
  rig->cache->Read(object.number, {8192, 12288}, [](const Status&, const FileSlice&) {});
  rig->Execute(wire::CreadCommand{rig->live, rig->NextRead()->msg_id, ESTALE});
  EXPECT_TRUE(rig->Acquire(kMiB)->stale);
  return object;
}

TEST(CacheSuccessorTest, WhatIsPresentStaysUntilItsSuccessorIsOpen) {
  CacheRig rig;
  const ObjectInfo old = StaleObject(&rig);
  const ObjectNumber volume = *rig.cache->AddVolume("volume");
  std::optional<Result<ObjectInfo>> answer;
  rig.cache->Acquire({volume, "volume"}, "object", {}, Freshness::kReplace,
                     [&](const Result<ObjectInfo>& info) { answer.emplace(info); });
  const auto open = rig.NextOpen();
  EXPECT_TRUE(open->is_check);
  EXPECT_EQ(open->attr, "one");
  EXPECT_TRUE(rig.IsPresent(old.number, {0, 4096}));
  rig.Execute(wire::CopenCommand{open->msg_id, 0, EHOSTUNREACH});
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->status().error(), EHOSTUNREACH);
  EXPECT_TRUE(rig.IsPresent(old.number, {0, 4096}));
  rig.attr_of_open = "two";
  const Result<ObjectInfo> fresh = rig.Acquire(kMiB, /*replace_stale=*/true);
  ASSERT_TRUE(fresh.ok()) << fresh.status().message();
  EXPECT_NE(fresh->number, old.number);
  EXPECT_FALSE(fresh->stale);
  EXPECT_EQ(rig.Acquire(kMiB)->number, fresh->number);
  EXPECT_FALSE(rig.IsPresent(fresh->number, {0, 4096}));
  EXPECT_EQ(rig.cache->DescribeObjects().size(), 1u);
}

TEST(CacheSuccessorTest, AnObjectThatIsFoundUnchangedIsAsBefore) {
  CacheRig rig;
  const ObjectInfo old = StaleObject(&rig);
  rig.attr_of_open.clear();  // The one that is known holds.
  const Result<ObjectInfo> again = rig.Acquire(kMiB, /*replace_stale=*/true);
  ASSERT_TRUE(again.ok()) << again.status().message();
  EXPECT_EQ(rig.open_result, -EALREADY);
  EXPECT_EQ(again->number, old.number);
  EXPECT_FALSE(again->stale);
  EXPECT_TRUE(rig.IsPresent(old.number, {0, 4096}));
  rig.Reopen();
  EXPECT_FALSE(rig.Acquire(kMiB)->stale);
  EXPECT_EQ(rig.cache->DescribeObjects().size(), 1u);
}

TEST(CacheSuccessorTest, WithoutAValidatorAMountAsksAgain) {
  CacheRig rig;
  rig.attr_of_open = "one";
  rig.facts = {12, 34, false};
  const ObjectInfo known = *rig.Acquire(kMiB);
  EXPECT_EQ(known.facts, rig.facts);
  rig.Reopen();
  EXPECT_EQ(rig.Acquire(kMiB)->facts, rig.facts);  // A look-up asks no fetcher.
  rig.attr_of_open.clear();
  EXPECT_EQ(rig.Acquire(kMiB, /*replace_stale=*/true)->number, known.number);
  EXPECT_EQ(rig.open_result, -EALREADY);
  rig.attr_of_open = "two";
  EXPECT_NE(rig.Acquire(kMiB, /*replace_stale=*/true)->number, known.number);
}

// Starts to acquire "volume"/"object"; the answer comes into `answer`.
std::optional<AcquireTicket> Start(CacheRig* rig, Freshness freshness,
                                   std::optional<Result<ObjectInfo>>* answer) {
  const ObjectNumber volume = *rig->cache->AddVolume("volume");
  return rig->cache->Acquire({volume, "volume"}, "object", {}, freshness,
                             [answer](const Result<ObjectInfo>& info) { answer->emplace(info); });
}

TEST(CacheSuccessorTest, AnObjectInUseKeepsItsBytesAndIsMarked) {
  CacheRig rig;
  rig.attr_of_open = "one";
  rig.facts = {12, 34, false};
  const ObjectInfo old = *rig.Acquire(kMiB);
  rig.Execute(wire::FilledCommand{rig.live, {0, 4096}});
  std::optional<Result<ObjectInfo>> replacing, asking;
  Start(&rig, Freshness::kReplace, &replacing);
  Start(&rig, Freshness::kAsk, &asking);  // It has a say, as it knows of a mount.
  rig.AnswerOpen(kMiB, "two");
  EXPECT_EQ(rig.open_result, -EALREADY);
  ASSERT_TRUE(asking && asking->ok() && replacing && replacing->ok());
  EXPECT_EQ((*asking)->number, old.number);
  EXPECT_TRUE((*asking)->stale && (*replacing)->stale);
  EXPECT_TRUE(rig.IsPresent(old.number, {0, 4096}));
}

TEST(CacheSuccessorTest, AnAnswerThatNoAcquireWaitsForReplacesNothing) {
  CacheRig rig;
  const ObjectInfo old = StaleObject(&rig);
  std::optional<Result<ObjectInfo>> answer;
  const auto ticket = Start(&rig, Freshness::kReplace, &answer);
  ASSERT_TRUE(rig.cache->Withdraw(*ticket, Status(EINTR, "killed")));
  rig.AnswerOpen(kMiB, "two");
  EXPECT_EQ(rig.open_result, -EALREADY);
  EXPECT_TRUE(rig.IsPresent(old.number, {0, 4096}));
  EXPECT_EQ(rig.Acquire(kMiB)->number, old.number);
}

TEST(CacheSuccessorTest, AnObjectThatHasLeftMemoryIsReplacedLikeAnyOther) {
  CacheOptions options;
  options.max_objects = 1;
  CacheRig rig(options);
  const ObjectInfo old = StaleObject(&rig);
  std::optional<Result<ObjectInfo>> answer;
  Start(&rig, Freshness::kReplace, &answer);
  std::optional<wire::OpenMessage> open;
  while (!open) open = rig.NextOpen();
  // Others come, and the old one leaves.
  const ObjectNumber volume = *rig.cache->AddVolume("volume");
  rig.cache->Acquire({volume, "volume"}, "other", {}, Freshness::kKnown,
                     [](const Result<ObjectInfo>&) {});
  rig.Execute(wire::AttrCommand{open->object_id, "two"});
  rig.Execute(wire::FactsCommand{open->object_id, {}});
  EXPECT_EQ(rig.Execute(wire::CopenCommand{open->msg_id, kMiB, 0}), 0);
  ASSERT_TRUE(answer && answer->ok());
  EXPECT_NE((*answer)->number, old.number);
  EXPECT_EQ(rig.cache->DescribeObjects().size(), 1u);
  EXPECT_EQ(rig.cache->Stat(old.number).status().error(), ESTALE);
  EXPECT_FALSE(std::filesystem::exists(DataStore::PathIn(rig.directory + "/data", old.number)));
}

TEST(CacheSuccessorTest, AFetcherThatCannotCheckReplacesWhatIsStale) {
  CacheRig rig;
  const ObjectInfo old = StaleObject(&rig);
  std::optional<Result<ObjectInfo>> answer;
  Start(&rig, Freshness::kReplace, &answer);
  // Neither facts nor an attr: the same size says nothing.
  const auto open = rig.NextOpen();
  EXPECT_EQ(rig.Execute(wire::CopenCommand{open->msg_id, kMiB, 0}), 0);
  ASSERT_TRUE(answer && answer->ok());
  EXPECT_NE((*answer)->number, old.number);
}

class NoNumbersStore : public ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  Result<uint64_t> Reserve(Counter counter, uint64_t count) override {
    if (counter == Counter::kObjectNumber) return Status(ENOSPC, "no numbers");
    return ForwardingStore::Reserve(counter, count);
  }
};

TEST(CacheSuccessorTest, WithoutNumbersWhatIsKnownIsUsed) {
  CacheRig rig;
  const ObjectInfo old = StaleObject(&rig);
  rig.wrap_store = [](std::unique_ptr<MetadataStore> store) {
    return std::make_unique<NoNumbersStore>(std::move(store));
  };
  rig.Reopen();
  std::optional<Result<ObjectInfo>> answer;
  Start(&rig, Freshness::kReplace, &answer);
  ASSERT_TRUE(answer && answer->ok());
  EXPECT_EQ((*answer)->number, old.number);
}

}  // namespace
}  // namespace cachecore
