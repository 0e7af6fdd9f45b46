// BuildOf: the Merkle tree and digest of bytes in memory, for tests.

#ifndef TESTS_CACHECORE_VERITY_BUILT_TREE_H_
#define TESTS_CACHECORE_VERITY_BUILT_TREE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>

#include "cachecore/verity/verity_tree.h"

namespace cachecore {

struct BuiltTree {
  Digest digest = {};
  std::string tree;
};

inline BuiltTree BuildOf(const std::string& data) {
  BuiltTree built;
  const VerityLayout layout(data.size());
  built.tree.resize(layout.tree_bytes());
  const Result<Digest> digest = BuildTree(
      data.size(),
      [&](ByteRange range, std::span<uint8_t> out) {
        std::copy_n(data.begin() + static_cast<std::ptrdiff_t>(range.begin), range.size(),
                    out.begin());
        return Status();
      },
      [&](uint64_t block, const TreeBlock& bytes) {
        std::copy(bytes.begin(), bytes.end(),
                  built.tree.begin() + static_cast<std::ptrdiff_t>(block * kVerityBlock));
        return Status();
      });
  EXPECT_TRUE(digest.ok());
  built.digest = *digest;
  return built;
}

inline std::string RandomBytes(size_t size, std::mt19937_64* random) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; i += 64) bytes[i] = static_cast<char>((*random)());
  if (size > 0) bytes.back() = static_cast<char>((*random)());
  return bytes;
}

}  // namespace cachecore

#endif  // TESTS_CACHECORE_VERITY_BUILT_TREE_H_
