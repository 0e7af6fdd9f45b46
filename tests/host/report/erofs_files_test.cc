// Images that were damaged, or made to mislead, and what is said of them.

#include "host/report/erofs_files.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <random>

namespace host {
namespace {

// A superblock, a root directory with one file, and the file.
class Image {
 public:
  Image() : bytes_(16 * 4096, '\0') {
    Put(1024, 0xe0f5e1e2, 4);
    Put(1024 + 12, 12, 1);
    Put(1024 + 14, 0, 2);  // The root is node 0, behind the superblock's block.
    Put(1024 + 40, 1, 4);
    PutInode(0, 0040755, 4096, 3);
    PutInode(2, 0100644, 6000, 5);
    Put(3 * 4096, 2, 8);
    Put(3 * 4096 + 8, 12, 2);
    std::memcpy(&bytes_[3 * 4096 + 12], "file", 4);
  }
  void Put(size_t at, uint64_t value, size_t width) {
    for (size_t i = 0; i < width; ++i) bytes_[at + i] = static_cast<char>(value >> (8 * i));
  }
  void PutInode(size_t node, uint64_t mode, uint64_t size, uint64_t block) {
    const size_t at = 4096 + node * 32;
    Put(at, 0, 2);
    Put(at + 4, mode, 2);
    Put(at + 8, size, 4);
    Put(at + 16, block, 4);
  }
  cachecore::Result<ErofsListing> List(uint64_t absent = UINT64_MAX) const {
    return ListErofsFiles([this, absent](uint64_t offset, void* to, size_t size) {
      if (offset > bytes_.size() || size > bytes_.size() - offset) return false;
      if (offset <= absent && absent < offset + size) return false;
      std::memcpy(to, &bytes_[offset], size);
      return true;
    });
  }
  std::string& bytes() { return bytes_; }

 private:
  std::string bytes_;
};

// A directory within each directory, and 4096 names in each, for ever.
TEST(ErofsFilesTest, AnImageWithoutEndCostsNoMoreThanItsLimits) {
  uint64_t read = 0;
  const auto endless = [&read](uint64_t offset, void* to, size_t size) {
    read += size;
    std::memset(to, 0, size);
    auto* const bytes = static_cast<unsigned char*>(to);
    const auto put = [bytes](size_t at, uint64_t value, size_t width) {
      for (size_t i = 0; i < width; ++i) bytes[at + i] = static_cast<unsigned char>(value >> 8 * i);
    };
    if (offset == 1024) {
      put(0, 0xe0f5e1e2, 4);
      bytes[12] = 12;
      put(40, 1, 4);
    } else if (size == 32) {  // An inode: a directory at a block that is its node's number.
      put(4, 0040755, 2);
      put(8, 4096, 4);
      put(16, (offset - 4096) / 32 + (uint64_t{1} << 30), 4);
    } else {  // A directory's block: names of 200 bytes, which lead to further nodes.
      constexpr size_t kNames = 16;
      for (size_t i = 0; i < kNames; ++i) {
        put(i * 12, (offset / 4096 - (uint64_t{1} << 30)) * kNames + i + 1, 8);
        put(i * 12 + 8, kNames * 12 + i * 200, 2);
        std::memset(bytes + kNames * 12 + i * 200, static_cast<int>('a' + i), 200);
      }
    }
    return true;
  };
  const auto listing = ListErofsFiles(endless);
  ASSERT_TRUE(listing.ok()) << listing.status().message();
  EXPECT_TRUE(listing->is_cut || listing->unread > 0);
  EXPECT_LE(read, uint64_t{1} << 30);
}

TEST(ErofsFilesTest, AFileHasItsPathSizeAndBlocks) {
  const auto listing = Image().List();
  ASSERT_TRUE(listing.ok()) << listing.status().message();
  ASSERT_EQ(listing->files.size(), 1u);
  EXPECT_EQ(listing->files[0].path, "/file");
  EXPECT_EQ(listing->files[0].size_bytes, 6000u);
  ASSERT_EQ(listing->files[0].extents.size(), 1u);
  EXPECT_EQ(listing->files[0].extents[0], (cachecore::ByteRange{5 * 4096, 5 * 4096 + 6000}));
  EXPECT_EQ(listing->unread, 0u);
}

TEST(ErofsFilesTest, WhatIsNotInTheCacheIsCounted) {
  EXPECT_EQ(Image().List(1024).status().error(), EINVAL);
  for (const uint64_t absent : {uint64_t{4096}, uint64_t{4096 + 64}, uint64_t{3 * 4096}}) {
    const auto listing = Image().List(absent);
    ASSERT_TRUE(listing.ok());
    EXPECT_TRUE(listing->files.empty());
    EXPECT_EQ(listing->unread, 1u);
  }
}

TEST(ErofsFilesTest, AnotherFileIsNoImage) {
  Image image;
  image.Put(1024, 0, 4);
  EXPECT_EQ(image.List().status().message(), "not an EROFS image");
}

TEST(ErofsFilesTest, ADirectoryThatHoldsItselfEnds) {
  Image image;
  image.PutInode(2, 0040755, 4096, 3);
  const auto listing = image.List();
  ASSERT_TRUE(listing.ok());
  EXPECT_TRUE(listing->files.empty());
}

TEST(ErofsFilesTest, ChangedBytesNeverHurt) {
  std::mt19937_64 random(4711);
  for (int round = 0; round < 3000; ++round) {
    Image image;
    for (int i = 0; i < 6; ++i) {
      const size_t places[] = {1024 + random() % 128, 4096 + random() % 128,
                               3 * 4096 + random() % 32};
      image.bytes()[places[random() % 3]] = static_cast<char>(random());
    }
    const auto listing = image.List();
    if (!listing.ok()) continue;
    for (const ErofsFile& file : listing->files) {
      for (const cachecore::ByteRange extent : file.extents) EXPECT_LT(extent.begin, extent.end);
    }
  }
}

}  // namespace
}  // namespace host
