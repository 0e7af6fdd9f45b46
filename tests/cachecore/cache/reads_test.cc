// Reads: hits, reads that wait, and objects that refuse them.

#include "cachecore/cache/reads.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <optional>
#include <string>

#include "tests/cachecore/cache/parts_rig.h"

namespace cachecore {
namespace {

class ReadsTest : public testing::Test {
 protected:
  static constexpr uint64_t kSize = 1 << 20;
  static constexpr ByteRange kPresent{0, 65536};
  static constexpr ByteRange kAbsent{131072, 135168};

  ReadsTest() : number_(rig_.AddObject("object", kSize, kPresent)) {}

  // Null when the read has ended already; its status is in ended_ then.
  ReadTicket Read(ByteRange range, pid_t caller = 0) {
    ended_.reset();
    return rig_.reads.Read(number_, range,
                           [this](const Status& status, const FileSlice&) { ended_ = status; },
                           {.thread = caller});
  }
  void Detach(bool fail) {
    Transaction transaction(&rig_.core);
    rig_.core.engine.Detach(fail, transaction.effects());
  }
  void Fill(ByteRange range) {
    Transaction transaction(&rig_.core);
    rig_.core.engine.Fill(rig_.core.engine.Find(number_), range, transaction.effects());
  }
  // The engine's tick passes `by`.
  void Advance(Duration by) {
    rig_.clock.now += by;
    Transaction transaction(&rig_.core);
    rig_.core.engine.Expire("no fetcher is attached", transaction.effects());
  }
  size_t CountRequests() {
    const MutexLock lock(&rig_.core.mu);
    return rig_.core.engine.requests().size();
  }

  PartsRig rig_;
  ObjectNumber number_;
  std::optional<Status> ended_;
};

TEST_F(ReadsTest, AHitIsClippedToTheObjectAndRequestsNothing) {
  const auto slice = rig_.reads.TryRead(number_, {4096, 8192}).value();
  ASSERT_TRUE(slice.has_value());
  EXPECT_EQ(slice->range, (ByteRange{4096, 8192}));
  EXPECT_TRUE(slice->file->valid());
  EXPECT_TRUE(slice->through.empty());
  EXPECT_EQ(rig_.reads.TryRead(number_, {kSize, kSize + 1}).value()->range.size(), 0u);
  EXPECT_FALSE(rig_.reads.TryRead(number_, kAbsent).value().has_value());
  EXPECT_EQ(rig_.reads.TryRead(ObjectNumber{4711}, kPresent).status().error(), ESTALE);
  EXPECT_EQ(CountRequests(), 0u);
}

TEST_F(ReadsTest, AReadOfAbsentBytesEndsWhenTheyAreFilled) {
  ASSERT_NE(Read(kAbsent), nullptr);
  EXPECT_FALSE(ended_.has_value());
  EXPECT_GT(CountRequests(), 0u);
  Fill(kAbsent);
  ASSERT_TRUE(ended_.has_value());
  EXPECT_TRUE(ended_->ok());
}

TEST_F(ReadsTest, AReadEndsOnceByItsTimeoutOrItsWithdrawal) {
  ASSERT_NE(Read(kAbsent), nullptr);
  Advance(std::chrono::seconds(60));
  ASSERT_TRUE(ended_.has_value());
  EXPECT_EQ(ended_->error(), EIO);

  Advance(std::chrono::seconds(60));
  const ReadTicket read = Read(kAbsent);
  ASSERT_NE(read, nullptr);
  EXPECT_TRUE(rig_.reads.Withdraw(read, Status(EINTR, "killed")));
  EXPECT_EQ(ended_->error(), EINTR);
  EXPECT_FALSE(rig_.reads.Withdraw(read, Status(EIO, "again")));
  EXPECT_EQ(ended_->error(), EINTR);
}

TEST_F(ReadsTest, AnObjectThatRefusesReadsServesWhatIsPresent) {
  ASSERT_NE(Read(kAbsent), nullptr);
  rig_.reads.SetRefusesReads(number_, true);
  ASSERT_TRUE(ended_.has_value());
  EXPECT_EQ(ended_->error(), EIO);
  EXPECT_EQ(Read(kAbsent), nullptr);
  EXPECT_EQ(ended_->error(), EIO);
  EXPECT_TRUE(rig_.reads.TryRead(number_, kPresent).value().has_value());
  rig_.reads.SetRefusesReads(number_, false);
  EXPECT_NE(Read(kAbsent), nullptr);
}

TEST_F(ReadsTest, WithThePolicyFailADetachedDaemonServesWhatIsPresent) {
  Detach(/*fail=*/false);
  EXPECT_NE(Read(kAbsent), nullptr);
  Detach(/*fail=*/true);
  EXPECT_EQ(ended_->error(), EIO);
  EXPECT_EQ(Read(kAbsent), nullptr);
  EXPECT_EQ(ended_->error(), EIO);
  EXPECT_EQ(Read(kPresent), nullptr);
  EXPECT_TRUE(ended_->ok());
}

TEST_F(ReadsTest, AnUnwantedObjectIsEvictedUnlessItIsInUse) {
  const auto end_unwanted = [this](bool is_wanted, bool is_gone) {
    rig_.reads.EndUnwanted([=](const std::string&, const std::string&) { return is_wanted; },
                           [=](pid_t) { return is_gone; });
  };
  ASSERT_TRUE(rig_.reads.TryRead(number_, kPresent).ok());
  rig_.durability.Sync();
  end_unwanted(/*is_wanted=*/false, /*is_gone=*/false);
  EXPECT_TRUE(rig_.IsInMemory(number_)) << "it was read a moment ago";
  Advance(std::chrono::seconds(30));
  end_unwanted(/*is_wanted=*/true, /*is_gone=*/false);
  EXPECT_TRUE(rig_.IsInMemory(number_));
  end_unwanted(/*is_wanted=*/false, /*is_gone=*/false);
  EXPECT_FALSE(rig_.IsInMemory(number_));
}

TEST_F(ReadsTest, AReadOfAnUnwantedObjectEndsWhenItsReaderIsGone) {
  ASSERT_NE(Read(kAbsent, /*caller=*/4711), nullptr);
  Advance(std::chrono::seconds(30));
  for (const bool is_gone : {false, true}) {
    EXPECT_FALSE(ended_.has_value());
    rig_.reads.EndUnwanted([](const std::string&, const std::string&) { return false; },
                           [=](pid_t pid) { return is_gone && pid == 4711; });
  }
  ASSERT_TRUE(ended_.has_value());
  EXPECT_EQ(ended_->error(), ECANCELED);  // Counted as such; it would be EIO to a reader.
}

}  // namespace
}  // namespace cachecore
