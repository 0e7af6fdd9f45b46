#include "host/report/erofs_files.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <unordered_set>
#include <utility>

namespace host {
namespace {

using cachecore::ByteRange;
using cachecore::Result;
using cachecore::Status;

constexpr uint64_t kSuperblock = 1024;
constexpr uint32_t kMagic = 0xe0f5e1e2;
constexpr uint32_t kNodeGrain = 32;  // What a node id counts.
constexpr uint64_t kDirentSize = 12;
constexpr uint32_t kHole = 0xffffffff;
constexpr uint32_t kFeature48Bit = 0x80;  // Other superblocks and inodes, from Linux 6.15 on.
constexpr size_t kMaxChunks = 1 << 20;    // Of a file.
constexpr uint64_t kMaxDirectory = 64 << 20;
// Of a path, as the kernel has it; and of all that an image can make this program hold or read.
constexpr size_t kMaxPath = 4096;
constexpr size_t kMaxPathBytes = 256 << 20;
constexpr size_t kMaxExtents = 4 << 20;
constexpr uint64_t kMaxRead = uint64_t{1} << 30;

enum Layout { kPlain = 0, kCompressedFull = 1, kInline = 2, kCompressedCompact = 3, kChunks = 4 };

uint64_t AlignUp(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

// Little-endian numbers at an offset.
class Bytes {
 public:
  explicit Bytes(std::string bytes) : bytes_(std::move(bytes)) {}
  uint64_t At(size_t offset, size_t width) const {
    uint64_t value = 0;
    for (size_t i = 0; i < width; ++i) {
      value |= uint64_t{static_cast<unsigned char>(bytes_[offset + i])} << (8 * i);
    }
    return value;
  }
  uint16_t U16(size_t offset) const { return static_cast<uint16_t>(At(offset, 2)); }
  uint32_t U32(size_t offset) const { return static_cast<uint32_t>(At(offset, 4)); }
  uint64_t U64(size_t offset) const { return At(offset, 8); }
  const std::string& text() const { return bytes_; }

 private:
  std::string bytes_;
};

struct Inode {
  Layout layout = kPlain;
  uint32_t mode = 0;
  uint64_t size = 0;
  uint32_t place = 0;   // A block, a count of blocks or a chunk format, by the layout.
  uint64_t behind = 0;  // Where its inode and attributes end.
};

class Walker {
 public:
  explicit Walker(const ReadImage& read) : read_(read) {}

  Result<ErofsListing> Run() {
    const std::optional<Bytes> super = Read(kSuperblock, 128);
    if (!super) return Status(EINVAL, "the image's superblock is not in the cache");
    if (super->U32(0) != kMagic) return Status(EINVAL, "not an EROFS image");
    bits_ = static_cast<unsigned char>(super->text()[12]);
    if (bits_ < 9 || bits_ > 16 || (super->U32(80) & kFeature48Bit) != 0) {
      return Status(EINVAL, "an EROFS layout that is not known here");
    }
    meta_ = uint64_t{super->U32(40)} << bits_;
    directories_.push_back({super->U16(14), ""});
    for (size_t next = 0; next < directories_.size() && !listing_.is_cut; ++next) {
      const auto [node, path] = directories_[next];
      ListDirectory(node, path);
    }
    std::sort(listing_.files.begin(), listing_.files.end(),
              [](const ErofsFile& a, const ErofsFile& b) {
                const auto first = [](const ErofsFile& file) {
                  return file.extents.empty() ? UINT64_MAX : file.extents.front().begin;
                };
                return std::pair(first(a), a.path) < std::pair(first(b), b.path);
              });
    return std::move(listing_);
  }

 private:
  uint64_t BlockSize() const { return uint64_t{1} << bits_; }

  std::optional<Bytes> Read(uint64_t offset, size_t size) {
    if (!Spend(size, kMaxRead, &read_bytes_)) return std::nullopt;
    std::string bytes(size, '\0');
    if (!read_(offset, bytes.data(), size)) return std::nullopt;
    return Bytes(std::move(bytes));
  }

  // False: with `more` it would be above `max`, and the listing ends here.
  template <typename Number>
  bool Spend(Number more, Number max, Number* spent) {
    if (more > max - *spent) listing_.is_cut = true;
    if (!listing_.is_cut) *spent += more;
    return !listing_.is_cut;
  }

  std::optional<Inode> ReadInode(uint64_t node) {
    if (node > UINT64_MAX / kNodeGrain / 2) return std::nullopt;
    const uint64_t at = meta_ + node * kNodeGrain;
    const std::optional<Bytes> compact = Read(at, 32);
    if (!compact) return std::nullopt;
    const bool is_extended = (compact->U16(0) & 1) != 0;
    Inode inode;
    inode.layout = static_cast<Layout>(compact->U16(0) >> 1 & 7);
    inode.mode = compact->U16(4);
    inode.size = is_extended ? compact->U64(8) : compact->U32(8);
    inode.place = compact->U32(16);
    const uint64_t attributes = compact->U16(2);
    inode.behind = at + (is_extended ? 64 : 32) + (attributes == 0 ? 0 : 12 + (attributes - 1) * 4);
    return inode;
  }

  std::vector<ByteRange> ExtentsOf(const Inode& inode) {
    const uint64_t place = uint64_t{inode.place} << bits_;
    switch (inode.layout) {
      case kPlain:
        return {ByteRange::At(place, inode.size)};
      case kInline: {
        const uint64_t whole = inode.size / BlockSize() * BlockSize();
        std::vector<ByteRange> extents;
        if (whole > 0) extents.push_back(ByteRange::At(place, whole));
        if (inode.size > whole) extents.push_back(ByteRange::At(inode.behind, inode.size - whole));
        return extents;
      }
      case kChunks:
        return Chunks(inode);
      case kCompressedFull:
      case kCompressedCompact:
        return Compressed(inode);
    }
    return {};
  }

  // 4 bytes for each chunk, or 8 that name a device, too.
  std::vector<ByteRange> Chunks(const Inode& inode) {
    const uint64_t chunk = uint64_t{1} << (bits_ + (inode.place & 31));
    const bool has_indexes = (inode.place & 32) != 0;
    const size_t width = has_indexes ? 8 : 4;
    const uint64_t count = inode.size / chunk + (inode.size % chunk != 0);
    if (count > kMaxChunks) return {};
    const std::optional<Bytes> table =
        Read(AlignUp(inode.behind, width), static_cast<size_t>(count) * width);
    std::vector<ByteRange> extents;
    for (size_t i = 0; table && i < count; ++i) {
      const uint32_t block = table->U32(i * width + (has_indexes ? 4 : 0));
      if (block == kHole || (has_indexes && table->U16(i * width + 2) != 0)) continue;
      const ByteRange part =
          ByteRange::At(uint64_t{block} << bits_, std::min(chunk, inode.size - i * chunk));
      if (!extents.empty() && extents.back().end == part.begin) {
        extents.back().end = part.end;
      } else {
        extents.push_back(part);
      }
    }
    return extents;
  }

  // From the block of its first cluster on, as many as the inode says.
  std::vector<ByteRange> Compressed(const Inode& inode) {
    constexpr uint16_t kCompacted2B = 1, kBigClusters = 2;
    constexpr uint8_t kInPackedInode = 0x80;
    const uint64_t header_at = AlignUp(inode.behind, 8);
    const std::optional<Bytes> header = Read(header_at, 8);
    if (!header || inode.place == 0) return {};
    const uint16_t advise = header->U16(4);
    const auto cluster_bits = static_cast<uint8_t>(header->At(7, 1));
    if ((cluster_bits & kInPackedInode) != 0) return {};
    uint64_t first = 0;
    if (inode.layout == kCompressedFull) {
      const std::optional<Bytes> index = Read(header_at + 16, 8);
      if (!index) return {};
      first = index->U32(4);
    } else {
      // The first pack ends with the block before its first cluster's.
      const uint64_t base = header_at + 8;
      const uint64_t lead = (32 - base % 32) / 4 % 8;  // Clusters in packs of two, up to there.
      const uint64_t cluster = uint64_t{1} << (bits_ + (cluster_bits & 7));
      const uint64_t clusters = inode.size / cluster + (inode.size % cluster != 0);
      const bool is_16 = lead == 0 && (advise & kCompacted2B) != 0 && clusters >= 16;
      const std::optional<Bytes> block = Read(base + (is_16 ? 28 : 4), 4);
      if (!block) return {};
      first = uint64_t{block->U32(0)} + ((advise & kBigClusters) != 0 ? 0 : 1);
    }
    return {ByteRange::At(first << bits_, uint64_t{inode.place} << bits_)};
  }

  void ListDirectory(uint64_t node, const std::string& path) {
    const std::optional<Inode> inode = ReadInode(node);
    if (!inode || !S_ISDIR(inode->mode) || inode->size > kMaxDirectory) {
      ++listing_.unread;
      return;
    }
    // A block at a time: what was not read of a large directory hides no other part.
    for (const ByteRange extent : ExtentsOf(*inode)) {
      for (uint64_t at = extent.begin; at < extent.end; at += BlockSize()) {
        const auto size = static_cast<size_t>(std::min(BlockSize(), extent.end - at));
        const std::optional<Bytes> block = Read(at, size);
        if (!block) {
          ++listing_.unread;
          continue;
        }
        ListBlock(*block, path);
        if (listing_.is_cut) return;
      }
    }
  }

  void ListBlock(const Bytes& block, const std::string& path) {
    const size_t size = block.text().size();
    if (size < kDirentSize) return;
    const size_t names = block.U16(8);
    if (names % kDirentSize != 0 || names == 0 || names > size) {
      ++listing_.unread;
      return;
    }
    const size_t count = names / kDirentSize;
    for (size_t i = 0; i < count; ++i) {
      const size_t begin = block.U16(i * kDirentSize + 8);
      const size_t end = i + 1 < count ? block.U16((i + 1) * kDirentSize + 8) : size;
      if (begin > end || end > size) {
        ++listing_.unread;
        return;
      }
      std::string name = block.text().substr(begin, end - begin);
      name.resize(std::min(name.find('\0'), name.size()));
      if (name.empty() || name == "." || name == "..") continue;
      AddNode(block.U64(i * kDirentSize), path + "/" + name);
      if (listing_.is_cut) return;
    }
  }

  // Each node once: a second name is a hard link.
  void AddNode(uint64_t node, const std::string& path) {
    if (!seen_.insert(node).second) return;
    if (seen_.size() > ErofsListing::kMaxFiles) {
      listing_.is_cut = true;
      return;
    }
    if (path.size() > kMaxPath) {
      ++listing_.unread;
      return;
    }
    if (!Spend(path.size(), kMaxPathBytes, &path_bytes_)) return;
    const std::optional<Inode> inode = ReadInode(node);
    if (!inode) {
      ++listing_.unread;
    } else if (S_ISDIR(inode->mode)) {
      directories_.emplace_back(node, path);
    } else if (S_ISREG(inode->mode)) {
      std::vector<ByteRange> extents = ExtentsOf(*inode);
      std::erase_if(extents, [](ByteRange extent) { return extent.empty(); });
      if (!Spend(extents.size(), kMaxExtents, &extents_)) return;
      listing_.files.push_back({path, inode->size, std::move(extents)});
    }
  }

  const ReadImage& read_;
  unsigned bits_ = 12;
  uint64_t meta_ = 0;
  std::vector<std::pair<uint64_t, std::string>> directories_;
  std::unordered_set<uint64_t> seen_;
  uint64_t read_bytes_ = 0;
  size_t path_bytes_ = 0;
  size_t extents_ = 0;
  ErofsListing listing_;
};

}  // namespace

Result<ErofsListing> ListErofsFiles(const ReadImage& read) { return Walker(read).Run(); }

}  // namespace host
