#include "cachecore/totals/totals.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

namespace cachecore {
namespace {

using std::chrono::milliseconds;

UniqueFd CopyOf(int fd) { return UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

TEST(TotalsTest, TheNextProcessGoesOn) {
  UniqueFd left;
  {
    const auto first = Totals::Open(UniqueFd());
    ASSERT_TRUE(first.ok());
    (*first)->Find("a").Add(3);
    (*first)->Find("b x").Set(7);
    left = CopyOf((*first)->memory());
  }
  const auto next = Totals::Open(std::move(left));
  ASSERT_TRUE(next.ok());
  (*next)->Find("a").Add(1);
  EXPECT_EQ((*next)->All(), (std::map<std::string, uint64_t>{{"a", 4}, {"b x", 7}}));
}

TEST(TotalsTest, ANewLifeGoesOnWithTheText) {
  const auto first = Totals::Open(UniqueFd());
  (*first)->Find("a \"quoted\"").Add(uint64_t{1} << 63);
  const auto next = Totals::Open(UniqueFd());
  EXPECT_TRUE((*next)->Add((*first)->Text()).ok());
  EXPECT_EQ((*next)->All(), (*first)->All());
  for (const char* text : {"", "{", "[1]", "{\"a\":-1}", "{\"a\":1,\"b\":\"x\"}"}) {
    EXPECT_EQ((*next)->Add(text).error(), EBADMSG) << text;
  }
  EXPECT_EQ((*next)->All(), (*first)->All());
}

TEST(TotalsTest, MemoryOfAnotherLayoutIsRefused) {
  UniqueFd other(memfd_create("other", MFD_CLOEXEC));
  EXPECT_EQ(Totals::Open(CopyOf(other.get())).status().error(), EPROTO);
  const auto totals = Totals::Open(UniqueFd());
  UniqueFd memory = CopyOf((*totals)->memory());
  EXPECT_NE(ftruncate(memory.get(), 0), 0);  // It would end the process that counts.
  const uint64_t magic = 1;
  ASSERT_EQ(pwrite(memory.get(), &magic, sizeof(magic), 0), ssize_t{sizeof(magic)});
  EXPECT_EQ(Totals::Open(std::move(memory)).status().error(), EPROTO);
}

TEST(TotalsTest, AFullTableCountsWhatItHas) {
  const auto totals = Totals::Open(UniqueFd());
  for (size_t i = 0; i < Totals::kMax; ++i) (*totals)->Find(std::to_string(i)).Add(1);
  (*totals)->Find("more").Add(1);
  (*totals)->Find("7").Add(1);
  EXPECT_EQ((*totals)->All().size(), Totals::kMax);
  EXPECT_EQ((*totals)->Find("7").value(), 2u);
  EXPECT_EQ((*totals)->Find("more").value(), 0u);
}

TEST(TotalsTest, ALongNameIsCut) {
  const auto totals = Totals::Open(UniqueFd());
  (*totals)->Find(std::string(5000, 'x')).Add(1);
  EXPECT_EQ((*totals)->All().begin()->first.size(), Totals::kMaxNameSize);
  EXPECT_EQ((*totals)->Find(std::string(6000, 'x')).value(), 1u);
}

TEST(TimeTotalsTest, ATimeCountsInItsBucket) {
  const auto totals = Totals::Open(UniqueFd());
  const TimeTotals times(totals->get(), "t");
  for (const Duration took : {Duration(0), Duration(milliseconds(1)), Duration(milliseconds(2)),
                              Duration(std::chrono::seconds(301)), Duration(-1)}) {
    times.Note(took);
  }
  const auto bucket = [&](size_t index) {
    return (*totals)->Find(TimeTotals::BucketName("t", index)).value();
  };
  EXPECT_EQ(bucket(0), 3u);
  EXPECT_EQ(bucket(1), 1u);
  EXPECT_EQ(bucket(TimeTotals::kSeconds.size()), 1u);
  EXPECT_EQ((*totals)->Find(TimeTotals::SumName("t")).value(), 301'003'000u);
  TimeTotals().Note(milliseconds(1));  // Counts nothing.
}

}  // namespace
}  // namespace cachecore
