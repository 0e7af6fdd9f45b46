#include "host/content/sif_image.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace host {
namespace {

constexpr char kUrl[] = "http://h/image.sif";
constexpr size_t kDescriptorBytes = 585;

void Put(std::string* bytes, size_t offset, uint64_t value, size_t length) {
  for (size_t i = 0; i < length; ++i) (*bytes)[offset + i] = static_cast<char>(value >> (8 * i));
}

std::string Head(uint64_t descriptors, uint64_t table_offset) {
  std::string head(128, '\0');
  head.replace(0, 32, "#!/usr/bin/env run-singularity\n\0", 32);
  head.replace(32, 10, "SIF_MAGIC\0", 10);
  Put(&head, 88, descriptors, 8);
  Put(&head, 96, table_offset, 8);
  return head;
}

std::string Descriptor(uint64_t type, uint64_t file_system, uint64_t partition, uint64_t offset,
                       uint64_t bytes) {
  std::string descriptor(kDescriptorBytes, '\0');
  Put(&descriptor, 0, type, 4);
  Put(&descriptor, 4, 1, 1);
  Put(&descriptor, 17, offset, 8);
  Put(&descriptor, 25, bytes, 8);
  Put(&descriptor, 201, file_system, 4);
  Put(&descriptor, 205, partition, 4);
  return descriptor;
}

TEST(SifImageTest, TheTableIsWhereTheHeaderSays) {
  const auto table = FindSifTable(Head(48, 4096));
  ASSERT_TRUE(table.has_value());
  EXPECT_EQ(table->offset, 4096u);
  EXPECT_EQ(table->bytes, 48 * kDescriptorBytes);
  EXPECT_FALSE(FindSifTable(std::string(4096, 'x')).has_value());
  EXPECT_FALSE(FindSifTable("SIF_MAGIC").has_value());
  EXPECT_LE(FindSifTable(Head(~uint64_t{0}, 4096))->bytes, 1u << 20) << "whatever a header says";
}

TEST(SifImageTest, TheRootIsThePrimarySystemPartition) {
  const std::string table = Descriptor(0x4001, 0, 0, 10, 10) + Descriptor(0x4004, 1, 3, 20, 20) +
                            Descriptor(0x4004, 1, 2, 65536, 1000) + std::string(3000, '\0');
  const auto root = FindSifRoot(table, 70000, kUrl);
  ASSERT_TRUE(root.ok()) << root.status().message();
  EXPECT_EQ(*root, 65536u);
}

TEST(SifImageTest, WhatHasNoRootThatCanBeReadIsAnError) {
  EXPECT_EQ(
      FindSifRoot(Descriptor(0x4004, 1, 2, 65536, 10000), 70000, kUrl).status().message(),
      "http://h/image.sif is a truncated SIF image: its file system has 10000 bytes from byte "
      "65536 on, the origin has 70000");
  EXPECT_EQ(FindSifRoot(Descriptor(0x4004, 1, 2, ~uint64_t{0}, 2), 70000, kUrl).status().error(),
            EINVAL);
  EXPECT_EQ(FindSifRoot(Descriptor(0x4004, 5, 2, 65536, 100), 70000, kUrl).status().message(),
            "http://h/image.sif is an encrypted SIF image; use --as=file to mount it as a file");
  for (const std::string& table :
       {std::string(), std::string(100, '\xff'), Descriptor(0x4004, 1, 3, 65536, 100)}) {
    EXPECT_EQ(FindSifRoot(table, 70000, kUrl).status().message(),
              "http://h/image.sif is a SIF image without a primary system partition; use --as=file "
              "to mount it as a file");
  }
}

}  // namespace
}  // namespace host
