#include "host/content/image_kind.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "host/content/little_endian.h"

namespace host {
namespace {

using cachecore::Result;
using cachecore::Status;

constexpr size_t kSuperblockOffset = 1024;
constexpr uint32_t kErofsMagic = 0xE0F5E1E2;
// Offsets in struct erofs_super_block.
constexpr size_t kMagicAt = 0;
constexpr size_t kBlockSizeBitsAt = 12;
constexpr size_t kBlocksHighAt = 14;  // Only with kFeature48Bit; else the root's node id.
constexpr size_t kBlocksLowAt = 36;
constexpr size_t kFeatureIncompatAt = 80;
constexpr size_t kExtraDevicesAt = 86;
constexpr size_t kDeviceTableSlotAt = 88;
constexpr size_t kErofsSuperblockBytes = 128;
constexpr uint32_t kFeatureDeviceTable = 0x08;
constexpr uint32_t kFeature48Bit = 0x80;

struct ErofsFeature {
  uint32_t bit;
  // As the kernel lists them.  Two may share a bit, and come with one kernel; null: in every kernel
  // that has the bits above it, and not listed.
  const char* name;
};
constexpr ErofsFeature kErofsFeatures[] = {
    {0x01, "zero_padding"}, {0x02, "compr_cfgs"},   {0x04, "chunked_file"},
    {0x08, "device_table"}, {0x10, "ztailpacking"}, {0x20, "fragments"},
    {0x40, nullptr},        {0x80, "48bit"},        {0x100, "metabox"}};

uint32_t Word(std::string_view bytes, size_t offset, size_t length) {
  return static_cast<uint32_t>(LittleEndian(bytes, offset, length));
}

bool StartsWithIgnoringCase(std::string_view text, std::string_view prefix) {
  const auto equal = [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a - 'A' + 'a' : a) == b; };
  return text.size() >= prefix.size() &&
         std::equal(prefix.begin(), prefix.end(), text.begin(),
                    [&equal](char p, char t) { return equal(t, p); });
}

bool LooksLikeHtml(std::string_view head) {
  if (head.starts_with("\xef\xbb\xbf")) head.remove_prefix(3);
  const size_t start = head.find_first_not_of(" \t\r\n\f");
  if (start == std::string_view::npos) return false;
  head.remove_prefix(start);
  return StartsWithIgnoringCase(head, "<!doctype html") || StartsWithIgnoringCase(head, "<html");
}

}  // namespace

const char* ImageKindName(ImageKind kind) { return kind == ImageKind::kErofs ? "erofs" : "file"; }

std::optional<uint64_t> ErofsImageBytes(std::string_view head) {
  if (head.size() < kSuperblockOffset + kErofsSuperblockBytes) return std::nullopt;
  const std::string_view superblock = head.substr(kSuperblockOffset, kErofsSuperblockBytes);
  if (Word(superblock, kMagicAt, 4) != kErofsMagic) return std::nullopt;
  uint64_t blocks = Word(superblock, kBlocksLowAt, 4);
  if (Word(superblock, kFeatureIncompatAt, 4) & kFeature48Bit) {
    blocks |= uint64_t{Word(superblock, kBlocksHighAt, 2)} << 32;
  }
  // A superblock with a wild block size is left to the kernel, which says so in its log.
  return blocks << std::min<uint32_t>(Word(superblock, kBlockSizeBitsAt, 1), 16);
}

std::optional<ErofsDevices> FindErofsDevices(std::string_view head) {
  if (!ErofsImageBytes(head)) return std::nullopt;
  const std::string_view superblock = head.substr(kSuperblockOffset, kErofsSuperblockBytes);
  if ((Word(superblock, kFeatureIncompatAt, 4) & kFeatureDeviceTable) == 0) {
    return std::nullopt;
  }
  const size_t count = Word(superblock, kExtraDevicesAt, 2);
  if (count == 0) return std::nullopt;
  return ErofsDevices{uint64_t{Word(superblock, kDeviceTableSlotAt, 2)} * kErofsDeviceSlotBytes,
                      count};
}

std::string UnknownErofsFeatures(std::string_view head, const std::vector<std::string>& known) {
  if (!ErofsImageBytes(head)) return "";
  uint32_t needed = Word(head, kSuperblockOffset + kFeatureIncompatAt, 4);
  std::string unknown;
  const auto add = [&unknown](const std::string& name, uint32_t bits) {
    char hex[16];
    std::snprintf(hex, sizeof hex, "0x%x", bits);
    unknown += (unknown.empty() ? "" : ", ") + (name.empty() ? hex : name + " (" + hex + ")");
  };
  for (const auto& [bit, name] : kErofsFeatures) {
    if ((needed & bit) == 0) continue;
    needed &= ~bit;
    if (name == nullptr || std::find(known.begin(), known.end(), name) != known.end()) continue;
    add(name, bit);
  }
  if (needed != 0) add("", needed);
  return unknown;
}

Result<ImageKind> RecogniseImage(const std::string& as, std::string_view head, uint64_t size_bytes,
                                 const std::string& url) {
  if (as == "file") return ImageKind::kFile;
  const std::optional<uint64_t> image_bytes = ErofsImageBytes(head);
  if (image_bytes && *image_bytes > size_bytes) {
    return Status(EINVAL, url + " is a truncated image: its superblock says " +
                              std::to_string(*image_bytes) + " bytes, the origin has " +
                              std::to_string(size_bytes));
  }
  if (image_bytes) return ImageKind::kErofs;
  if (as == "erofs") {
    return Status(EINVAL, url +
                              " is not an EROFS image: it has no EROFS superblock "
                              "(use --as=file to mount it as a file)");
  }
  if (LooksLikeHtml(head)) {
    return Status(EINVAL,
                  url + " is an HTML page, not an image (use --as=file to mount it as it is)");
  }
  return ImageKind::kFile;
}

}  // namespace host
