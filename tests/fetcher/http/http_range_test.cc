#include "fetcher/http/http_range.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <random>

#include "tests/cachecore/engine/seed.h"

namespace fetcher {
namespace {

using cachecore::ByteRange;

TEST(ContentRangeTest, TheThreeFormsAreRead) {
  auto both = ParseContentRange("bytes 0-99/1000");
  ASSERT_TRUE(both.ok());
  EXPECT_EQ(both->range, (ByteRange{0, 100}));
  EXPECT_EQ(both->total, 1000u);
  auto open = ParseContentRange("bytes 5-5/*");
  ASSERT_TRUE(open.ok());
  EXPECT_EQ(open->range, (ByteRange{5, 6}));
  EXPECT_EQ(open->total, std::nullopt);
  auto none = ParseContentRange("bytes */0");
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(none->range, std::nullopt);
  EXPECT_EQ(none->total, 0u);
}

TEST(ContentRangeTest, TheUnitMayBeInCapitalsAndBlanksMayTrail) {
  EXPECT_TRUE(ParseContentRange("Bytes 0-0/1 \t").ok());
}

TEST(ContentRangeTest, AnythingElseIsRefused) {
  for (const char* bad :
       {"", "bytes", "bytes ", "bytes 0-0", "bytes 0-0/", "bytes */*", "bytes */", "bytes -1/2",
        "bytes 1-0/2", "bytes 0-1/1", "bytes 0-0/1x", "bytes 0-0/1, bytes", "items 0-0/1",
        "bytes=0-0/1", "bytes 0 -0/1", "bytes +0-0/1", "bytes 0-18446744073709551615/*",
        "bytes 0-9223372036854775807/*", "bytes 99999999999999999999-1/2"}) {
    EXPECT_EQ(ParseContentRange(bad).status().error(), EBADMSG) << bad;
  }
}

TEST(ContentRangeTest, RandomTextNeverGivesAnImpossibleRange) {
  std::mt19937_64 random(TestSeed());
  constexpr char kAlphabet[] = "0123456789-/* b";
  for (int i = 0; i < 200'000; ++i) {
    std::string text = "bytes ";
    for (uint64_t n = random() % 16; n > 0; --n) text += kAlphabet[random() % 15];
    const auto parsed = ParseContentRange(text);
    if (!parsed.ok() || !parsed->range) continue;
    ASSERT_FALSE(parsed->range->empty()) << text;
    if (parsed->total) {
      ASSERT_LE(parsed->range->end, *parsed->total) << text;
    }
  }
}

TEST(HttpRangeTest, FormatIsInclusive) {
  EXPECT_EQ(FormatRange({0, 1}), "0-0");
  EXPECT_EQ(FormatRange({4096, 8192}), "4096-8191");
}

TEST(HttpRangeTest, OnlyQuotedPlainEtagsAreStrong) {
  EXPECT_TRUE(IsStrongEtag("\"a\""));
  EXPECT_TRUE(IsStrongEtag("\"\""));
  EXPECT_FALSE(IsStrongEtag("W/\"a\""));
  EXPECT_FALSE(IsStrongEtag("a"));
  EXPECT_FALSE(IsStrongEtag("\""));
  EXPECT_FALSE(IsStrongEtag(""));
  EXPECT_FALSE(IsStrongEtag("\"\xff\""));
}

}  // namespace
}  // namespace fetcher
