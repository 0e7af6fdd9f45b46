#include "host/content/sif_image.h"

#include <algorithm>
#include <cerrno>

#include "host/content/little_endian.h"

namespace host {
namespace {

using cachecore::Result;
using cachecore::Status;

// The header: a line for the shell goes before the magic.
constexpr size_t kSifMagicAt = 32;
constexpr std::string_view kSifMagic = "SIF_MAGIC";
constexpr size_t kDescriptorsAt = 88;
constexpr size_t kTableOffsetAt = 96;
constexpr size_t kHeaderBytes = 128;
constexpr uint64_t kDescriptorsMax = 1024;  // 48 in what is made today.
// A descriptor.
constexpr size_t kDescriptorBytes = 585;
constexpr size_t kTypeAt = 0;
constexpr size_t kUsedAt = 4;
constexpr size_t kFileOffsetAt = 17;
constexpr size_t kFileBytesAt = 25;
constexpr size_t kFileSystemAt = 201;
constexpr size_t kPartitionAt = 205;
constexpr uint64_t kPartitionType = 0x4004;
constexpr uint64_t kPrimarySystem = 2;
constexpr uint64_t kEncrypted = 5;

}  // namespace

std::optional<SifTable> FindSifTable(std::string_view head) {
  if (head.size() < kHeaderBytes || head.substr(kSifMagicAt, kSifMagic.size()) != kSifMagic) {
    return std::nullopt;
  }
  const uint64_t count = std::min(LittleEndian(head, kDescriptorsAt, 8), kDescriptorsMax);
  return SifTable{LittleEndian(head, kTableOffsetAt, 8), count * kDescriptorBytes};
}

Result<uint64_t> FindSifRoot(std::string_view table, uint64_t size_bytes, const std::string& url) {
  for (; table.size() >= kDescriptorBytes; table.remove_prefix(kDescriptorBytes)) {
    if (table[kUsedAt] == 0 || LittleEndian(table, kTypeAt, 4) != kPartitionType) continue;
    if (LittleEndian(table, kPartitionAt, 4) != kPrimarySystem) continue;
    if (LittleEndian(table, kFileSystemAt, 4) == kEncrypted) {
      return Status(EINVAL,
                    url + " is an encrypted SIF image; use --as=file to mount it as a file");
    }
    const uint64_t offset = LittleEndian(table, kFileOffsetAt, 8);
    const uint64_t bytes = LittleEndian(table, kFileBytesAt, 8);
    if (offset < size_bytes && bytes <= size_bytes - offset) return offset;
    return Status(EINVAL, url + " is a truncated SIF image: its file system has " +
                              std::to_string(bytes) + " bytes from byte " + std::to_string(offset) +
                              " on, the origin has " + std::to_string(size_bytes));
  }
  return Status(EINVAL, url +
                            " is a SIF image without a primary system partition; use --as=file to "
                            "mount it as a file");
}

}  // namespace host
