// DataRoom: spells without room, and the count that objects share.

#include "fetcher/room/data_room.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <optional>

#include "cachecore/base/unique_fd.h"

namespace fetcher {
namespace {

using std::chrono::seconds;

const Failure kDiskFull{Failure::Kind::kLocal, ENOSPC, "write: No space left on device"};

TEST(DataRoomTest, ASpellLastsUntilBytesHaveBeenKept) {
  size_t without_room = 0;
  DataRoom room(&without_room);
  EXPECT_FALSE(room.is_lacking());
  room.Lacks(kDiskFull, 4096, /*goes_through=*/true, seconds(100));
  EXPECT_TRUE(room.is_lacking());
  EXPECT_EQ(room.failure().cause, kDiskFull.cause);
  EXPECT_EQ(room.begin(), 4096u);
  EXPECT_EQ(room.look_at(), seconds(100) + DataRoom::kInterval);
  room.Found();
  EXPECT_FALSE(room.is_lacking());
}

TEST(DataRoomTest, AnObjectCountsOnceHoweverOftenItFindsNoRoom) {
  size_t without_room = 0;
  DataRoom first(&without_room);
  std::optional<DataRoom> second(std::in_place, &without_room);
  first.Lacks(kDiskFull, 0, true, seconds(100));
  first.Lacks(first.failure(), 8192, true, seconds(101));
  EXPECT_EQ(without_room, 1u);
  EXPECT_EQ(first.begin(), 8192u);
  second->Lacks(kDiskFull, 0, true, seconds(101));
  EXPECT_EQ(without_room, 2u);
  second.reset();  // Closed meanwhile.
  EXPECT_EQ(without_room, 1u);
  first.Found();
  EXPECT_EQ(without_room, 0u);
}

TEST(DataRoomTest, RoomIsTakenAndTheFileGrowsNoLonger) {
  const cachecore::UniqueFd file(memfd_create("data", MFD_CLOEXEC));
  ASSERT_TRUE(file.valid());
  EXPECT_TRUE(DataRoom::IsThere(file.get(), 0, 2 * DataRoom::kSought));
  struct stat info;
  ASSERT_EQ(fstat(file.get(), &info), 0);
  EXPECT_EQ(info.st_size, 0);
  EXPECT_GE(info.st_blocks * 512, static_cast<off_t>(DataRoom::kSought));
  // Behind the object nothing is needed.
  EXPECT_TRUE(DataRoom::IsThere(-1, 4096, 4096));
}

}  // namespace
}  // namespace fetcher
