#include "cachecore/base/parse_text.h"

#include <gtest/gtest.h>

namespace cachecore {
namespace {

TEST(ParseTextTest, DurationsHaveUnitsAndBareNumbersAreSeconds) {
  EXPECT_EQ(*ParseDuration("0"), Duration::zero());
  EXPECT_EQ(*ParseDuration("5"), std::chrono::seconds(5));
  EXPECT_EQ(*ParseDuration("5s"), std::chrono::seconds(5));
  EXPECT_EQ(*ParseDuration("250ms"), std::chrono::milliseconds(250));
  EXPECT_EQ(*ParseDuration("1.5m"), std::chrono::seconds(90));
  EXPECT_EQ(*ParseDuration("2h"), std::chrono::hours(2));
}

TEST(ParseTextTest, WhatIsNoDurationIsRefusedByName) {
  for (const char* text : {"", "s", "5 s", "-1s", "5d", "5ss", "1e99", "0x5"}) {
    EXPECT_EQ(ParseDuration(text).status().error(), EINVAL) << text;
  }
  EXPECT_EQ(ParseDuration("5d").status().message(),
            "\"5d\" is not a duration: a number and ms, s, m or h");
}

TEST(ParseTextTest, SizesArePowersOf1024) {
  EXPECT_EQ(*ParseSize("0"), 0u);
  EXPECT_EQ(*ParseSize("4096"), 4096u);
  EXPECT_EQ(*ParseSize("64K"), 65536u);
  EXPECT_EQ(*ParseSize("4MiB"), 4u << 20);
  EXPECT_EQ(*ParseSize("1T"), 1ull << 40);
}

TEST(ParseTextTest, WhatIsNoSizeIsRefused) {
  for (const char* text : {"", "K", "4 K", "-1", "4k", "4MB", "1.5M", "99999999T"}) {
    EXPECT_EQ(ParseSize(text).status().error(), EINVAL) << text;
  }
}

TEST(ParseTextTest, SizesAndPercentages) {
  EXPECT_EQ(ParseSizeOrPercent("80%")->Of(1000), 800u);
  EXPECT_EQ(ParseSizeOrPercent("100%")->Of(1000), 1000u);
  EXPECT_EQ(ParseSizeOrPercent("20G")->Of(1000), uint64_t{20} << 30);
  EXPECT_EQ(ParseSizeOrPercent("0")->Of(1000), 0u);
  for (const char* text : {"", "%", "0%", "101%", "-5%", "5 %", "5.5%", "much", "5%%"}) {
    EXPECT_EQ(ParseSizeOrPercent(text).status().error(), EINVAL) << text;
  }
}

}  // namespace
}  // namespace cachecore
