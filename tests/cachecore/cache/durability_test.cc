// Durability: what a sync records, and what is removed.

#include "cachecore/cache/durability.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "tests/cachecore/cache/parts_rig.h"

namespace cachecore {
namespace {

class DurabilityTest : public testing::Test {
 protected:
  static constexpr uint64_t kSize = 1 << 20;
  static constexpr ByteRange kFilled{0, 65536};

  DurabilityTest() {
    number_ = rig_.AddObject("object", kSize, kFilled);
    EXPECT_TRUE(rig_.catalogue.EnsureLoaded(number_).ok());
  }
  std::shared_ptr<const ObjectVerity> Verity() {
    const MutexLock lock(&rig_.core.mu);
    Object* object = rig_.core.engine.Find(number_);
    object->digest = Digest{};
    object->NoteVerity();
    return object->verity;
  }

  PartsRig rig_;
  ObjectNumber number_;
};

TEST_F(DurabilityTest, ASyncMakesWhatIsPresentDurable) {
  EXPECT_EQ(rig_.durability.unsynced_bytes(), kFilled.size());
  EXPECT_FALSE(rig_.IsDurable(number_, kFilled, kSize));
  rig_.durability.Sync();
  EXPECT_TRUE(rig_.IsDurable(number_, kFilled, kSize));
  EXPECT_EQ(rig_.durability.unsynced_bytes(), 0u);
  EXPECT_EQ(rig_.durability.counters().bytes, kFilled.size());
}

TEST_F(DurabilityTest, ASyncThatTheStoreRefusesIsTriedAgain) {
  rig_.store.trouble = Status(ENOSPC, "full");
  rig_.durability.Sync();
  EXPECT_EQ(rig_.durability.unsynced_bytes(), kFilled.size());
  EXPECT_EQ(rig_.durability.counters().bytes, 0u);
  EXPECT_EQ(rig_.PresentBytes(number_), kFilled.size());
  rig_.store.trouble = Status();
  rig_.durability.Sync();
  EXPECT_TRUE(rig_.IsDurable(number_, kFilled, kSize));
}

TEST_F(DurabilityTest, TheFirstSyncTakesWhatAnEarlierDaemonOfThisBootHasFilled) {
  const ObjectNumber other = rig_.AddObject("other", kSize, kFilled);
  rig_.durability.Sync();
  EXPECT_TRUE(rig_.IsDurable(other, kFilled, kSize));
}

TEST_F(DurabilityTest, ARecordThatTheStoreRefusedIsWrittenByASync) {
  {
    const MutexLock lock(&rig_.core.mu);
    Object* object = rig_.core.engine.Find(number_);
    object->stale = true;
    object->record_due = true;
  }
  rig_.store.trouble = Status(ENOSPC, "full");
  rig_.durability.Sync();
  EXPECT_FALSE(rig_.store.LoadObject(number_).value()->stale);
  rig_.store.trouble = Status();
  rig_.durability.Sync();
  EXPECT_TRUE(rig_.store.LoadObject(number_).value()->stale);
}

TEST_F(DurabilityTest, WrongBlocksAreAbsentOnDiskAndInMemory) {
  rig_.durability.Sync();
  rig_.durability.RemoveWrongPresence(*Verity(), {{{4096, 8192}, "a test says so"}});
  EXPECT_EQ(rig_.PresentBytes(number_), kFilled.size() - 4096);
  EXPECT_FALSE(rig_.IsDurable(number_, {4096, 8192}, kSize));
  EXPECT_TRUE(rig_.IsDurable(number_, {8192, kFilled.end}, kSize));
  EXPECT_FALSE(rig_.store.LoadPresence(number_, kSize)->Covers({4096, 8192}));
  const MutexLock lock(&rig_.core.mu);
  EXPECT_EQ(rig_.core.engine.counters().bytes_found_wrong, 4096u);
}

TEST_F(DurabilityTest, PresenceOfADroppedObjectIsErased) {
  {
    const MutexLock lock(&rig_.catalogue.load_mu);
    ASSERT_TRUE(rig_.catalogue.DropObject(number_, "a test drops it").ok());
  }
  const auto record = [this](ObjectNumber number) {
    MetadataBatch batch;
    batch.add_presence.push_back({number, kFilled, Presence::kThisBoot});
    ASSERT_TRUE(rig_.store.Commit(batch, Sync::kNo).ok());
  };
  record(number_);
  rig_.durability.EraseStray(number_);
  EXPECT_EQ(rig_.store.LoadPresence(number_, kSize)->present_bytes(), 0u);

  // An object that has left memory alone keeps its own.
  const ObjectNumber known = rig_.AddObject("known", kSize, kFilled);
  rig_.durability.EraseStray(known);
  EXPECT_EQ(rig_.store.LoadPresence(known, kSize)->present_bytes(), kFilled.size());
}

}  // namespace
}  // namespace cachecore
