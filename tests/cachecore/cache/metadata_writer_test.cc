// MetadataWriter: what a store that takes no writes leads to.

#include "cachecore/store/metadata_writer.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "tests/cachecore/base/captured_log.h"
#include "tests/cachecore/cache/scripted_store.h"

namespace cachecore {
namespace {

class MetadataWriterTest : public testing::Test {
 protected:
  MetadataWriterTest() { batch_.erase_journal.push_back(MsgId{7}); }

  ScriptedStore store_;
  MetadataWriter writer_{&store_};
  MetadataBatch batch_;
  CapturedLog log_;
};

TEST_F(MetadataWriterTest, ABatchIsWritten) {
  EXPECT_TRUE(writer_.CommitOrLog(batch_));
  ASSERT_EQ(store_.batches.size(), 1u);
  EXPECT_EQ(store_.batches[0].erase_journal, batch_.erase_journal);
  EXPECT_EQ(writer_.trouble(), "");
}

TEST_F(MetadataWriterTest, AnEmptyBatchIsDoneWithoutTheStore) {
  store_.trouble = Status(ENOSPC, "full");
  EXPECT_TRUE(writer_.CommitOrLog({}));
  EXPECT_EQ(writer_.trouble(), "");
}

TEST_F(MetadataWriterTest, ATroubleIsLoggedOnceAndItsEnd) {
  store_.trouble = Status(ENOSPC, "full");
  EXPECT_FALSE(writer_.CommitOrLog(batch_));
  store_.trouble = Status(EROFS, "read-only");
  EXPECT_FALSE(writer_.CommitOrLog(batch_));
  writer_.Heal();
  EXPECT_EQ(writer_.trouble(), "read-only");
  EXPECT_EQ(log_.Count("metadata cannot be written"), 1);
  EXPECT_EQ(log_.Count("metadata can be written again"), 0);

  store_.trouble = Status();
  writer_.Heal();
  writer_.Heal();
  EXPECT_EQ(writer_.trouble(), "");
  EXPECT_EQ(log_.Count("metadata can be written again"), 1);
}

// The store may have taken it into memory only.
TEST_F(MetadataWriterTest, ABatchThatIsWrittenDoesNotEndTheTrouble) {
  store_.trouble = Status(ENOSPC, "full");
  EXPECT_FALSE(writer_.CommitOrLog(batch_));
  store_.trouble = Status();
  EXPECT_TRUE(writer_.CommitOrLog(batch_));
  EXPECT_EQ(writer_.trouble(), "full");
}

}  // namespace
}  // namespace cachecore
