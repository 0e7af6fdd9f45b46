// Catalogue: volumes by name, objects that are loaded, evicted and dropped.

#include "cachecore/cache/catalogue.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>
#include <vector>

#include "tests/cachecore/cache/parts_rig.h"

namespace cachecore {
namespace {

class CatalogueTest : public testing::Test {
 protected:
  static constexpr uint64_t kSize = 1 << 20;

  std::optional<ObjectNumber> FindByName(const std::string& cookie) {
    const MutexLock lock(&rig_.catalogue.load_mu);
    return rig_.catalogue.FindByName({rig_.volume, "volume"}, cookie).value();
  }
  Status Drop(ObjectNumber number) {
    const MutexLock lock(&rig_.catalogue.load_mu);
    return rig_.catalogue.DropObject(number, "a test drops it");
  }
  void SetUsed(ObjectNumber number, Duration used) {
    const MutexLock lock(&rig_.core.mu);
    rig_.core.engine.Find(number)->used = used;
  }

  PartsRig rig_;
};

TEST_F(CatalogueTest, AnObjectThatAReplyUsesStaysInMemory) {
  const ObjectNumber number = rig_.AddObject("object", kSize, {0, kSize});
  rig_.durability.Sync();
  auto slice = rig_.reads.TryRead(number, {0, 4096});
  ASSERT_TRUE(slice.ok() && slice->has_value());
  rig_.catalogue.MakeRoomFor(0);
  EXPECT_TRUE(rig_.IsInMemory(number));
  slice->reset();
  rig_.catalogue.MakeRoomFor(0);
  EXPECT_FALSE(rig_.IsInMemory(number));
}

TEST_F(CatalogueTest, AVolumeKeepsItsNumber) {
  EXPECT_EQ(rig_.catalogue.AddVolume("volume").value(), rig_.volume);
  EXPECT_NE(rig_.catalogue.AddVolume("other").value(), rig_.volume);
  EXPECT_EQ(rig_.catalogue.FindVolume("volume").value()->number, rig_.volume);
  EXPECT_EQ(rig_.catalogue.LoadVolume(rig_.volume).value()->key, "volume");
  EXPECT_FALSE(rig_.catalogue.FindVolume("none").value().has_value());
  EXPECT_EQ(rig_.catalogue.AddVolume("a/b").status().error(), EINVAL);
}

TEST_F(CatalogueTest, AnObjectIsLoadedWithWhatIsPresent) {
  const ObjectNumber number = rig_.AddObject("object", kSize, {0, 65536});
  EXPECT_FALSE(rig_.IsInMemory(number));
  EXPECT_EQ(FindByName("object"), number);
  EXPECT_TRUE(rig_.IsInMemory(number));
  EXPECT_EQ(rig_.PresentBytes(number), 65536u);
  const ObjectInfo info = rig_.catalogue.Stat(number).value();
  EXPECT_EQ(info.volume_key, "volume");
  EXPECT_EQ(info.cookie_key, "object");
  EXPECT_EQ(info.size_bytes, kSize);
}

TEST_F(CatalogueTest, AnObjectWithoutARecordIsGone) {
  EXPECT_EQ(rig_.catalogue.EnsureLoaded(ObjectNumber{4711}).error(), ESTALE);
  EXPECT_EQ(rig_.catalogue.Stat(ObjectNumber{4711}).status().error(), ESTALE);
  EXPECT_EQ(FindByName("none"), std::nullopt);
}

TEST_F(CatalogueTest, TheIdleObjectsThatWereNotUsedForLongestLeaveMemory) {
  std::vector<ObjectNumber> numbers;
  for (int i = 0; i < 4; ++i) {
    numbers.push_back(rig_.AddObject("object" + std::to_string(i), kSize));
    ASSERT_TRUE(rig_.catalogue.EnsureLoaded(numbers.back()).ok());
    SetUsed(numbers.back(), std::chrono::seconds(10 - i));
  }
  {
    Transaction transaction(&rig_.core);  // The one that was not used for longest is not idle.
    rig_.core.engine.Prefetch(rig_.core.engine.Find(numbers[3]), {0, 4096}, transaction.effects());
  }
  rig_.catalogue.MakeRoomFor(5);
  for (const ObjectNumber number : numbers) EXPECT_TRUE(rig_.IsInMemory(number));
  rig_.catalogue.MakeRoomFor(4);
  EXPECT_TRUE(rig_.IsInMemory(numbers[0]));
  EXPECT_TRUE(rig_.IsInMemory(numbers[1]));
  EXPECT_FALSE(rig_.IsInMemory(numbers[2]));
  EXPECT_TRUE(rig_.IsInMemory(numbers[3]));
  EXPECT_TRUE(rig_.catalogue.EnsureLoaded(numbers[2]).ok());
}

TEST_F(CatalogueTest, AnObjectWhoseDataFileIsLostKeepsItsNumberWithoutBytes) {
  const ObjectNumber number = rig_.AddObject("object", kSize, {0, 65536});
  ASSERT_TRUE(rig_.data.Remove(number).ok());
  EXPECT_EQ(FindByName("object"), number);
  EXPECT_EQ(rig_.PresentBytes(number), 0u);
  EXPECT_TRUE(rig_.HasFile(number));
  EXPECT_EQ(rig_.store.LoadPresence(number, kSize)->present_bytes(), 0u);
}

TEST_F(CatalogueTest, ADroppedObjectHasNoFileAndNoRecord) {
  const ObjectNumber number = rig_.AddObject("object", kSize, {0, 65536});
  ASSERT_TRUE(rig_.catalogue.EnsureLoaded(number).ok());
  EXPECT_TRUE(Drop(number).ok());
  EXPECT_FALSE(rig_.HasFile(number));
  EXPECT_FALSE(rig_.store.LoadObject(number)->has_value());
  EXPECT_EQ(FindByName("object"), std::nullopt);
  EXPECT_TRUE(Drop(number).ok()) << "it is gone already";
}

TEST_F(CatalogueTest, ADropThatTheStoreRefusesIsCompletedWhenTheRecordIsMet) {
  const ObjectNumber number = rig_.AddObject("object", kSize, {0, 65536});
  ASSERT_TRUE(rig_.catalogue.EnsureLoaded(number).ok());
  rig_.store.trouble = Status(ENOSPC, "full");
  EXPECT_EQ(Drop(number).error(), ENOSPC);
  rig_.store.trouble = Status();
  EXPECT_TRUE(rig_.store.LoadObject(number)->has_value());
  EXPECT_EQ(FindByName("object"), std::nullopt);
  EXPECT_FALSE(rig_.store.LoadObject(number)->has_value());
}

}  // namespace
}  // namespace cachecore
