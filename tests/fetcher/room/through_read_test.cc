// ThroughRead: one READ at a time, the count that objects share, and the pause after a failure.

#include "fetcher/room/through_read.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <vector>

namespace fetcher {
namespace {

using cachecore::ByteRange;
using cachecore::MsgId;
using std::chrono::seconds;

constexpr cachecore::Duration kNow = seconds(100);
constexpr ByteRange kRange{4096, 12288};

class ThroughReadTest : public testing::Test {
 protected:
  size_t count_ = 0;
  ThroughRead read_{&count_};
};

TEST_F(ThroughReadTest, ItsBytesAreSealedAtTheirPlaceInTheObject) {
  EXPECT_FALSE(read_.is_active());
  ASSERT_TRUE(read_.Begin(MsgId{7}, kRange));
  EXPECT_TRUE(read_.Is(MsgId{7}));
  EXPECT_FALSE(read_.Is(MsgId{8}));
  EXPECT_EQ(read_.rest(), kRange);
  ASSERT_EQ(pwrite(read_.file(), "bytes", 5, kRange.begin), 5);
  read_.Arrived(8192);
  EXPECT_EQ(read_.rest(), (ByteRange{8192, kRange.end}));

  const auto sealed = read_.Seal();
  ASSERT_TRUE(sealed.has_value());
  EXPECT_EQ(sealed->id, MsgId{7});
  EXPECT_EQ(sealed->range, kRange);
  EXPECT_EQ(pwrite(sealed->file.get(), "other", 5, kRange.begin), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(ftruncate(sealed->file.get(), 0), -1);
  EXPECT_FALSE(read_.is_active());
}

TEST_F(ThroughReadTest, TheNextOneBeginsWithoutBytes) {
  ASSERT_TRUE(read_.Begin(MsgId{7}, kRange));
  read_.Arrived(kRange.end);
  read_.Reset();
  ASSERT_TRUE(read_.Begin(MsgId{8}, {0, 4096}));
  EXPECT_EQ(read_.rest(), (ByteRange{0, 4096}));
  EXPECT_EQ(lseek(read_.file(), 0, SEEK_END), 0);
}

TEST_F(ThroughReadTest, EachEndTakesItOutOfTheCount) {
  ASSERT_TRUE(read_.Begin(MsgId{1}, kRange));
  EXPECT_EQ(count_, 1u);
  EXPECT_TRUE(read_.Seal().has_value());
  EXPECT_EQ(count_, 0u);
  ASSERT_TRUE(read_.Begin(MsgId{2}, kRange));
  read_.Reset();
  read_.Reset();
  EXPECT_EQ(count_, 0u);
  {
    ThroughRead other(&count_);
    ASSERT_TRUE(other.Begin(MsgId{3}, kRange));
    EXPECT_EQ(count_, 1u);
  }
  EXPECT_EQ(count_, 0u);
}

TEST_F(ThroughReadTest, ABoundedNumberOfReadsIsInMemory) {
  std::vector<std::unique_ptr<ThroughRead>> others;
  while (read_.MayContinue(/*sent=*/1, kNow)) {
    others.push_back(std::make_unique<ThroughRead>(&count_));
    ASSERT_TRUE(others.back()->Begin(MsgId{1}, kRange));
  }
  EXPECT_EQ(others.size(), ThroughRead::kMost - 1);
  EXPECT_TRUE(read_.MayContinue(/*sent=*/0, kNow));
  EXPECT_TRUE(others.back()->MayContinue(ThroughRead::kMost, kNow)) << "it has begun";
}

TEST_F(ThroughReadTest, NoneGoesOnWithinAPause) {
  ASSERT_TRUE(read_.Begin(MsgId{1}, kRange));
  read_.Pause(kNow);
  EXPECT_EQ(read_.paused_until(), kNow + ThroughRead::kPause);
  EXPECT_FALSE(read_.MayContinue(0, kNow));
  EXPECT_TRUE(read_.MayContinue(0, kNow + ThroughRead::kPause));
}

}  // namespace
}  // namespace fetcher
