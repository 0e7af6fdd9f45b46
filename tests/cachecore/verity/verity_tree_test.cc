#include "cachecore/verity/verity_tree.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "cachecore/verity/tree_cache.h"
#include "tests/cachecore/engine/seed.h"
#include "tests/cachecore/verity/built_tree.h"

namespace cachecore {
namespace {

TEST(VerityTreeTest, DigestsAreReadWithAndWithoutTheirAlgorithm) {
  const std::string hex(64, 'a');
  ASSERT_TRUE(ParseDigest(hex).ok());
  EXPECT_EQ(DigestText(*ParseDigest("sha256:" + hex)), "sha256:" + hex);
  for (const std::string bad : {"", "sha256:", "sha512:aa", "sha256:zz"}) {
    EXPECT_EQ(ParseDigest(bad).status().error(), EINVAL) << bad;
  }
  EXPECT_FALSE(ParseDigest(hex + "a").ok());
  EXPECT_FALSE(ParseDigest("sha256:" + std::string(63, 'a') + "g").ok());
}

// Known from the program, so that this holds where it is not installed.
TEST(VerityTreeTest, TheDigestOfTheEmptyFileIsTheProgramsToo) {
  EXPECT_EQ(DigestText(BuildOf("").digest),
            "sha256:3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95");
}

TEST(VerityTreeTest, EveryTreeBlockIsTheOneItsParentNames) {
  std::mt19937_64 random(TestSeed());
  const std::string data = RandomBytes((128 * 128 + 300) * kVerityBlock + 17, &random);
  const BuiltTree built = BuildOf(data);
  const VerityLayout layout(data.size());
  BlockHasher& hasher = BlockHasher::OfThisThread();
  const auto block = [&](uint64_t number) {
    TreeBlock bytes;
    std::copy_n(built.tree.begin() + static_cast<std::ptrdiff_t>(number * kVerityBlock),
                kVerityBlock, bytes.begin());
    return bytes;
  };
  EXPECT_EQ(layout.PathTo(0).size(), 3u);
  EXPECT_EQ(hasher.OfFile(data.size(), hasher.OfBlock(block(0))), built.digest);
  for (uint64_t number = 1; number < layout.tree_blocks(); ++number) {
    ASSERT_TRUE(HashIs(block(*layout.ParentOf(number)), layout.SlotOf(number),
                       hasher.OfBlock(block(number))))
        << number;
  }
  const uint64_t last = layout.data_blocks() - 1;
  EXPECT_EQ(layout.PathTo(last).back(), layout.tree_blocks() - 1);
  EXPECT_EQ(layout.CoveredBy(layout.LeafOf(last)).end, data.size());
}

// The lanes of the multi-buffer library, some of them empty, against one hash after the other.
TEST(BlockHasherTest, BlocksTogetherHaveTheHashesThatTheyHaveAlone) {
  std::mt19937_64 random(TestSeed());
  BlockHasher& hasher = BlockHasher::OfThisThread();
  for (size_t blocks = 0; blocks <= 300; blocks += 1 + blocks / 40) {
    for (const size_t more : {size_t{0}, size_t{1}, size_t{4095}}) {
      const std::string data = RandomBytes(blocks * kVerityBlock + more, &random);
      const std::span bytes(reinterpret_cast<const uint8_t*>(data.data()), data.size());
      std::vector<Digest> digests(blocks + 2, Digest{});
      hasher.OfBlocks(bytes, digests);
      size_t number = 0;
      for (size_t at = 0; at < bytes.size(); at += kVerityBlock, ++number) {
        const size_t size = std::min<size_t>(kVerityBlock, bytes.size() - at);
        ASSERT_EQ(digests[number], hasher.OfBlock(bytes.subspan(at, size))) << number << blocks;
      }
      ASSERT_EQ(digests[number], Digest{}) << blocks;
    }
  }
}

TEST(VerityTreeTest, TheTailBeginsAtTheNext64KiB) {
  EXPECT_EQ(VerityLayout(0).tail_end(), 0u);
  EXPECT_EQ(VerityLayout(4096).tail_end(), 65536u);
  EXPECT_EQ(VerityLayout(4097).tail_offset(), 65536u);
  EXPECT_EQ(VerityLayout(4097).tail_end(), 65536u + 4096);
  EXPECT_EQ(VerityLayout(65536).tail_offset(), 65536u);
}

TEST(TreeCacheTest, ItKeepsWhatWasUsedLast) {
  TreeCache cache(2);
  const auto block = std::make_shared<const TreeBlock>();
  cache.Add(1, 0, block);
  cache.Add(1, 1, block);
  EXPECT_NE(cache.Find(1, 0), nullptr);
  cache.Add(2, 0, block);
  EXPECT_EQ(cache.Find(1, 1), nullptr);
  EXPECT_NE(cache.Find(1, 0), nullptr);
  cache.Forget(1);
  EXPECT_EQ(cache.Find(1, 0), nullptr);
  EXPECT_NE(cache.Find(2, 0), nullptr);
}

}  // namespace
}  // namespace cachecore
