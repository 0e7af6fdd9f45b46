// The names on disk, against ones that Linux kernels were seen to make.

#include "fusefs/cachefiles/backing_name.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

namespace fusefs {
namespace {

std::string PathOf(const std::string& volume, const std::string& cookie) {
  const BackingName name = BackingNameOf(volume, cookie);
  return name.volume + "/" + name.fan_out + "/" + name.file;
}

std::string Words(const std::vector<uint32_t>& words) {
  std::string bytes;
  for (const uint32_t word : words) {
    for (int shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(word >> shift);
  }
  return bytes;
}

TEST(BackingNameTest, PrintableKeysAreThereAsTheyAre) {
  EXPECT_EQ(PathOf("erofs,styxtest9dbeb96981e633e3", "_slab_0"),
            "Ierofs,styxtest9dbeb96981e633e3/@0e/D_slab_0");
  EXPECT_EQ(PathOf("erofs,styxtestbf4a1ed3c4d64dd8", "_slab_0"),
            "Ierofs,styxtestbf4a1ed3c4d64dd8/@1d/D_slab_0");
  EXPECT_EQ(PathOf("erofs,styxtest9dbeb96981e633e3", "_slabimg_0"),
            "Ierofs,styxtest9dbeb96981e633e3/@fb/D_slabimg_0");
}

TEST(BackingNameTest, BinaryKeysAreWordsInHexadecimal) {
  const std::string volume = "nfs,3.0,2,,a4214ac,c0000208,,,3002c0,10000,10000,12c,1770,bb8,1770,1";
  EXPECT_EQ(PathOf(volume, Words({0, 0xc0000208, 0, 0x1cf4167, 0x184558d9, 0xc0000208, 0, 0x40,
                                  0x36bab37, 0x40, 0})),
            "I" + volume + "/@58/T,c0000208,,1cf4167,184558d9,c0000208,,40,36bab37,40,");
}

TEST(BackingNameTest, TheShorterOrderOfBytesIsTaken) {
  EXPECT_EQ(BackingNameOf("v", std::string("\0\0\0\1", 4)).file, "S1");
  EXPECT_EQ(BackingNameOf("v", std::string("\1\0\0\0", 4)).file, "T1");
  EXPECT_EQ(BackingNameOf("v", std::string("\1\0\0\1", 4)).file, "S1000001");
}

TEST(BackingNameTest, LongBinaryKeysAreInBase64) {
  // What the kernel wrote as E210w114Hg92Az0HAMYCClFMVmkMY050002w1qO200, below @00.
  const std::string written = "10w114Hg92Az0HAMYCClFMVmkMY050002w1qO200";
  const std::string digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-";
  std::string key;
  for (size_t at = 0; at < written.size(); at += 4) {
    size_t group = 0;
    for (size_t i = 0; i < 4; ++i) group |= digits.find(written[at + i]) << (6 * i);
    for (int shift = 0; shift < 24; shift += 8) key += static_cast<char>(group >> shift);
  }
  key.resize(key.size() - 2);
  const std::string volume =
      "nfs,3.0,2,,300000a,e5e9b1269df2b0d,,,d0,100000,100000,249f0,249f0,249f0,249f0,1";
  EXPECT_EQ(PathOf(volume, key), "I" + volume + "/@00/E2" + written);
}

}  // namespace
}  // namespace fusefs
