#include "cachecore/base/hex.h"

#include <gtest/gtest.h>

namespace cachecore {
namespace {

using std::string_literals::operator""s;

TEST(HexTest, BytesComeBackAsTheyWere) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  EXPECT_EQ(BytesOfHex(HexText(all)), all);
  EXPECT_EQ(BytesOfHex(UpperHexText(all)), all);
  EXPECT_EQ(HexText("\0\xff"s + "a"), "00ff61");
  EXPECT_EQ(UpperHexText("\xab"), "AB");
  EXPECT_EQ(BytesOfHex(""), "");
}

TEST(HexTest, WhatIsNoHexIsRefused) {
  for (const char* text : {"0", "000", "0g", "g0", " 0", "0x", "-1", "\xc3\xa9"}) {
    EXPECT_EQ(BytesOfHex(text), std::nullopt) << text;
  }
  EXPECT_EQ(HexValue('\0'), -1);
  EXPECT_EQ(HexValue('/'), -1);
  EXPECT_EQ(HexValue(':'), -1);
}

}  // namespace
}  // namespace cachecore
