#include "fusefs/cachefiles/kept_records.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <memory>
#include <string>

namespace fusefs {
namespace {

using cachecore::Result;
using cachecore::UniqueFd;

using Records = std::map<std::string, std::string>;

// As the next daemon opens them.
std::unique_ptr<KeptRecords> Next(const KeptRecords& records) {
  return KeptRecords::Open(UniqueFd(dup(records.memory()))).value();
}

TEST(KeptRecordsTest, WhatWasCommittedIsFound) {
  const auto records = KeptRecords::Open({}).value();
  records->Put("a", "1");
  records->Put("b", "");
  records->Put("c", std::string("3\0", 2));
  EXPECT_TRUE(records->has_changes());
  EXPECT_TRUE(Next(*records)->records().empty()) << "not committed";
  records->Commit();
  EXPECT_FALSE(records->has_changes());
  const Records kept = {{"a", "1"}, {"b", ""}, {"c", std::string("3\0", 2)}};
  EXPECT_EQ(Next(*records)->records(), kept);
  records->Erase("a");
  records->Erase("z");
  records->Put("c", "4");
  EXPECT_EQ(Next(*records)->records(), kept);
  records->Commit();
  EXPECT_EQ(Next(*records)->records(), (Records{{"b", ""}, {"c", "4"}}));
  EXPECT_EQ(*Next(*records)->Find("c"), "4");
  EXPECT_EQ(Next(*records)->Find("a"), nullptr);
}

TEST(KeptRecordsTest, WhatDoesNotChangeIsNotWritten) {
  const auto records = KeptRecords::Open({}).value();
  records->Put("a", "1");
  records->Commit();
  records->Put("a", "1");
  records->Erase("b");
  EXPECT_FALSE(records->has_changes());
}

TEST(KeptRecordsTest, TheNextGoesOnWriting) {
  auto records = KeptRecords::Open({}).value();
  Records kept;
  // Some hundred times the size at which a half gives way to the other.
  for (int i = 0; i < 20000; ++i) {
    const std::string key = std::to_string(i % 7);
    if (i % 11 == 0) {
      records->Erase(key);
      kept.erase(key);
    } else {
      kept[key] = std::to_string(i) + std::string(6000, 'x');
      records->Put(key, kept[key]);
    }
    records->Commit();
    if (i % 1000 != 0) continue;
    records = Next(*records);
    ASSERT_EQ(records->records(), kept);
  }
  EXPECT_EQ(Next(*records)->records(), kept);
}

TEST(KeptRecordsTest, AMapThatIsTooLargeIsNotFoundInPart) {
  const auto records = KeptRecords::Open({}).value();
  records->Put("a", "1");
  records->Commit();
  records->Put("b", std::string(17 << 20, 'x'));
  records->Commit();
  EXPECT_EQ(KeptRecords::Open(UniqueFd(dup(records->memory()))).status().error(), EPROTO);
}

TEST(KeptRecordsTest, ForeignMemoryIsRefused) {
  UniqueFd small(memfd_create("small", MFD_CLOEXEC));
  EXPECT_EQ(KeptRecords::Open(std::move(small)).status().error(), EPROTO);
  const auto records = KeptRecords::Open({}).value();
  records->Put("a", "1");
  records->Commit();
  const uint64_t other = 0;
  ASSERT_EQ(pwrite(records->memory(), &other, sizeof(other), 0),
            static_cast<ssize_t>(sizeof(other)));
  EXPECT_EQ(KeptRecords::Open(UniqueFd(dup(records->memory()))).status().error(), EPROTO);
}

}  // namespace
}  // namespace fusefs
