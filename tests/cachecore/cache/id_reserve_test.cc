// IdReserve: ids are reserved before they are taken, and while there are plenty left.

#include "cachecore/cache/id_reserve.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <set>

#include "tests/cachecore/cache/scripted_store.h"

namespace cachecore {
namespace {

constexpr uint64_t kBlock = 64;

class IdReserveTest : public testing::Test {
 protected:
  IdReserveTest() {
    store_.next[Counter::kMsgId] = 1000;
    EXPECT_TRUE(ids_.EnsureIds().ok());
  }

  ScriptedStore store_;
  IdReserve ids_{&store_, kBlock};
};

TEST_F(IdReserveTest, NoIdComesTwiceAndEachWasReserved) {
  std::set<MsgId> taken;
  for (uint64_t i = 0; i < 10 * kBlock; ++i) {
    ASSERT_TRUE(ids_.EnsureIds().ok());
    const MsgId id = ids_.TakeMsgId();
    EXPECT_TRUE(taken.insert(id).second) << id.value;
    EXPECT_LT(id.value, store_.next[Counter::kMsgId]);
  }
  EXPECT_EQ(taken.begin()->value, 1000u);
}

TEST_F(IdReserveTest, TheStoreIsAskedOnceForHalfABlock) {
  ASSERT_TRUE(ids_.EnsureIds().ok());
  const int before = store_.reserves;
  for (uint64_t i = 0; i < kBlock / 2; ++i) {
    ASSERT_TRUE(ids_.EnsureIds().ok());
    (void)ids_.TakeMsgId();
  }
  ASSERT_TRUE(ids_.EnsureIds().ok());
  EXPECT_LE(store_.reserves - before, 1);
}

TEST_F(IdReserveTest, AStoreThatFailsCountsOnlyWhenFewIdsAreLeft) {
  store_.trouble = Status(ENOSPC, "full");
  uint64_t taken = 0;
  while (ids_.EnsureIds().ok()) {
    ASSERT_FALSE(ids_.lacks_ids());
    ASSERT_LT(taken++, kBlock);
    (void)ids_.TakeMsgId();
  }
  EXPECT_GE(taken, kBlock / 2);
  EXPECT_TRUE(ids_.lacks_ids());
  EXPECT_EQ(ids_.EnsureIds().error(), ENOSPC);
  (void)ids_.TakeMsgId();  // Calls that have begun have some left.

  store_.trouble = Status();
  EXPECT_TRUE(ids_.EnsureIds().ok());
  EXPECT_FALSE(ids_.lacks_ids());
}

TEST_F(IdReserveTest, NumbersAreReservedApartFromIds) {
  store_.trouble = Status(ENOSPC, "full");
  EXPECT_TRUE(ids_.EnsureIds().ok());
  EXPECT_EQ(ids_.EnsureNumbers().error(), ENOSPC);
  store_.trouble = Status();
  store_.next[Counter::kObjectNumber] = 16;
  EXPECT_TRUE(ids_.EnsureNumbers().ok());
  EXPECT_EQ(ids_.TakeNumber(), ObjectNumber{16});
}

TEST(IdReserveOfObjectsTest, ObjectIdsStayBelowTwoToThe31) {
  ScriptedStore store;
  store.next[Counter::kObjectId] = (uint64_t{1} << 31) - 1;
  IdReserve ids(&store, kBlock);
  ASSERT_TRUE(ids.EnsureIds().ok());
  EXPECT_EQ(ids.TakeObjectId().value, 0x7fffffffu);
  EXPECT_EQ(ids.TakeObjectId().value, 0u);
  EXPECT_EQ(ids.TakeObjectId().value, 1u);
}

}  // namespace
}  // namespace cachecore
