#include "host/content/image_kind.h"

#include <gtest/gtest.h>

#include <string>

namespace host {
namespace {

constexpr char kUrl[] = "http://h/image";

void Put(std::string* bytes, size_t offset, uint64_t value, size_t length) {
  for (size_t i = 0; i < length; ++i) {
    (*bytes)[offset + i] = static_cast<char>(value >> (8 * i) & 0xff);
  }
}

std::string Erofs(uint32_t blocks, int block_bits = 12) {
  std::string head(kImageHeadBytes, '\0');
  Put(&head, 1024, 0xE0F5E1E2, 4);
  Put(&head, 1024 + 12, static_cast<uint64_t>(block_bits), 1);
  Put(&head, 1024 + 36, blocks, 4);
  return head;
}

std::string ErrorOf(const std::string& as, const std::string& head, uint64_t size) {
  const auto kind = RecogniseImage(as, head, size, kUrl);
  return kind.ok() ? "" : kind.status().message();
}

ImageKind KindOf(const std::string& as, const std::string& head, uint64_t size) {
  const auto kind = RecogniseImage(as, head, size, kUrl);
  EXPECT_TRUE(kind.ok()) << kind.status().message();
  return kind.ok() ? *kind : ImageKind::kFile;
}

TEST(ImageKindTest, TheSuperblockSaysHowLargeTheImageIs) {
  EXPECT_EQ(ErofsImageBytes(Erofs(10)), 40960u);
  EXPECT_EQ(ErofsImageBytes(Erofs(10, 9)), 5120u);
  EXPECT_EQ(ErofsImageBytes(Erofs(0xffffffff)), uint64_t{0xffffffff} << 12);
  EXPECT_EQ(ErofsImageBytes(std::string(4096, '\0')), std::nullopt);
  EXPECT_EQ(ErofsImageBytes(Erofs(10).substr(0, 1151)), std::nullopt);
}

TEST(ImageKindTest, TheHighBlockBitsCountOnlyWithTheirFeature) {
  std::string head = Erofs(1);
  Put(&head, 1024 + 14, 2, 2);
  EXPECT_EQ(ErofsImageBytes(head), 4096u);
  Put(&head, 1024 + 80, 0x80, 4);
  EXPECT_EQ(ErofsImageBytes(head), ((uint64_t{2} << 32) + 1) << 12);
}

TEST(ImageKindTest, AutoTakesAnImageForAnImageAndTheRestForAFile) {
  EXPECT_EQ(KindOf("auto", Erofs(10), 40960), ImageKind::kErofs);
  EXPECT_EQ(KindOf("auto", Erofs(10), 50000), ImageKind::kErofs);
  EXPECT_EQ(KindOf("auto", "just some text", 14), ImageKind::kFile);
  EXPECT_EQ(KindOf("auto", "", 0), ImageKind::kFile);
  EXPECT_EQ(KindOf("erofs", Erofs(10), 40960), ImageKind::kErofs);
}

TEST(ImageKindTest, AnImageShorterThanItsSuperblockSaysIsTruncated) {
  for (const char* as : {"auto", "erofs"}) {
    EXPECT_EQ(ErrorOf(as, Erofs(10), 40959),
              "http://h/image is a truncated image: its superblock says 40960 bytes, the origin "
              "has 40959");
  }
}

TEST(ImageKindTest, AWebPageIsRefusedByName) {
  for (const char* page :
       {"<!DOCTYPE html><p>", " \n\t<!doctype HTML>", "<HTML lang=en>", "\xef\xbb\xbf\r\n<html>"}) {
    EXPECT_EQ(ErrorOf("auto", page, 20),
              "http://h/image is an HTML page, not an image (use --as=file to mount it as it is)");
  }
  EXPECT_EQ(KindOf("auto", "<!DOCTYPE svg>", 20), ImageKind::kFile);
  EXPECT_EQ(KindOf("auto", "text about <html>", 20), ImageKind::kFile);
}

TEST(ImageKindTest, ErofsIsAskedForAndNotThere) {
  EXPECT_EQ(ErrorOf("erofs", "<html>", 6),
            "http://h/image is not an EROFS image: it has no EROFS superblock (use --as=file to "
            "mount it as a file)");
}

TEST(ImageKindTest, FeaturesThatTheKernelDoesNotHaveAreNamed) {
  std::string head = Erofs(1);
  EXPECT_EQ(UnknownErofsFeatures(head, {}), "");
  Put(&head, 1024 + 80, 0x64, 4);  // chunked_file, fragments, and one that no kernel lists.
  EXPECT_EQ(UnknownErofsFeatures(head, {"chunked_file", "fragments"}), "");
  EXPECT_EQ(UnknownErofsFeatures(head, {"chunked_file"}), "fragments (0x20)");
  Put(&head, 1024 + 80, 0x80000424, 4);
  EXPECT_EQ(UnknownErofsFeatures(head, {"fragments"}), "chunked_file (0x4), 0x80000400");
  EXPECT_EQ(UnknownErofsFeatures("no image", {}), "");
}

TEST(ImageKindTest, ExtraDevicesAreThereWithTheirFeature) {
  std::string head = Erofs(10);
  Put(&head, 1024 + 86, 2, 2);
  Put(&head, 1024 + 88, 9, 2);
  EXPECT_FALSE(FindErofsDevices(head)) << "without the feature";
  Put(&head, 1024 + 80, 0x08, 4);
  const auto devices = FindErofsDevices(head);
  ASSERT_TRUE(devices);
  EXPECT_EQ(devices->offset, 9 * 128u);
  EXPECT_EQ(devices->count, 2u);
  Put(&head, 1024 + 86, 0, 2);
  EXPECT_FALSE(FindErofsDevices(head));
  EXPECT_FALSE(FindErofsDevices(std::string(4096, '\0')));
}

TEST(ImageKindTest, AsFileAcceptsEverything) {
  EXPECT_EQ(KindOf("file", Erofs(10), 5), ImageKind::kFile);
  EXPECT_EQ(KindOf("file", "<html>", 6), ImageKind::kFile);
}

}  // namespace
}  // namespace host
