#include "cachecore/verity/verity_tree.h"

#include <glog/logging.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "cachecore/base/hex.h"

namespace cachecore {
namespace {

constexpr std::string_view kPrefix = "sha256:";
constexpr uint64_t kTailAlignment = 64 << 10;

uint64_t BlocksOf(uint64_t count, uint64_t per_block) {
  return count / per_block + (count % per_block != 0);
}

}  // namespace

Result<Digest> ParseDigest(std::string_view text) {
  const Status bad(EINVAL, "\"" + std::string(text.substr(0, 100)) +
                               "\" is no fs-verity digest: sha256: and 64 hexadecimal digits");
  if (text.starts_with(kPrefix)) text.remove_prefix(kPrefix.size());
  Digest digest;
  const std::optional<std::string> bytes = BytesOfHex(text);
  if (!bytes || bytes->size() != digest.size()) return bad;
  std::copy(bytes->begin(), bytes->end(), digest.begin());
  return digest;
}

std::string DigestText(const Digest& digest) {
  return std::string(kPrefix) +
         HexText({reinterpret_cast<const char*>(digest.data()), digest.size()});
}

VerityLayout::VerityLayout(uint64_t size_bytes)
    : size_bytes_(size_bytes), data_blocks_(BlocksOf(size_bytes, kVerityBlock)) {
  std::vector<uint64_t> sizes;  // From the leaves up.
  for (uint64_t blocks = data_blocks_; blocks > 1;) {
    blocks = BlocksOf(blocks, kHashesPerBlock);
    sizes.push_back(blocks);
  }
  for (auto size = sizes.rbegin(); size != sizes.rend(); ++size) {
    leaves_ = tree_blocks_;
    level_starts_.push_back(tree_blocks_);
    tree_blocks_ += *size;
  }
}

ByteRange VerityLayout::CoveredBy(uint64_t leaf) const {
  CHECK_GE(leaf, leaves_);
  const uint64_t begin = (leaf - leaves_) * kHashesPerBlock * kVerityBlock;
  return ByteRange::At(begin, kHashesPerBlock * kVerityBlock).Intersect({0, size_bytes_});
}

std::optional<uint64_t> VerityLayout::ParentOf(uint64_t tree_block) const {
  if (tree_block == 0) return std::nullopt;
  const auto below = std::upper_bound(level_starts_.begin(), level_starts_.end(), tree_block) - 1;
  return *(below - 1) + (tree_block - *below) / kHashesPerBlock;
}

uint64_t VerityLayout::SlotOf(uint64_t tree_block) const {
  const auto level = std::upper_bound(level_starts_.begin(), level_starts_.end(), tree_block) - 1;
  return (tree_block - *level) % kHashesPerBlock;
}

std::vector<uint64_t> VerityLayout::PathTo(uint64_t data_block) const {
  std::vector<uint64_t> path;
  if (!has_tree()) return path;
  for (std::optional<uint64_t> at = LeafOf(data_block); at; at = ParentOf(*at)) path.push_back(*at);
  std::reverse(path.begin(), path.end());
  return path;
}

uint64_t VerityLayout::tail_offset() const {
  return BlocksOf(size_bytes_, kTailAlignment) * kTailAlignment;
}

bool HashIs(const TreeBlock& parent, uint64_t slot, const Digest& hash) {
  return std::memcmp(&parent[slot * sizeof(Digest)], hash.data(), sizeof(Digest)) == 0;
}

Result<Digest> BuildTree(uint64_t size_bytes,
                         const std::function<Status(ByteRange, std::span<uint8_t>)>& read,
                         const std::function<Status(uint64_t, const TreeBlock&)>& write) {
  const VerityLayout layout(size_bytes);
  BlockHasher& hasher = BlockHasher::OfThisThread();
  // The open block of each level, by its number; a block is handed up when the next one begins.
  struct Open {
    uint64_t number = 0;
    TreeBlock bytes = {};
  };
  std::vector<Open> levels;  // From the leaves up.
  Digest root = {};
  const std::function<Status(size_t, uint64_t, uint64_t, const Digest&)> add =
      [&](size_t level, uint64_t number, uint64_t slot, const Digest& hash) -> Status {
    if (level == levels.size()) levels.push_back({number, {}});
    std::memcpy(&levels[level].bytes[slot * sizeof(Digest)], hash.data(), sizeof(Digest));
    return Status();
  };
  const std::function<Status(size_t)> close = [&](size_t level) -> Status {
    const Open done = levels[level];
    RETURN_IF_ERROR(write(done.number, done.bytes));
    const Digest hash = hasher.OfBlock(done.bytes);
    levels[level] = {done.number + 1, {}};
    const std::optional<uint64_t> parent = layout.ParentOf(done.number);
    if (!parent) {
      root = hash;
      return Status();
    }
    if (level + 1 < levels.size() && levels[level + 1].number != *parent) {
      RETURN_IF_ERROR(close(level + 1));
    }
    return add(level + 1, *parent, layout.SlotOf(done.number), hash);
  };
  TreeBlock data;
  for (uint64_t block = 0; block < layout.data_blocks(); ++block) {
    const ByteRange range =
        ByteRange::At(block * kVerityBlock, kVerityBlock).Intersect({0, size_bytes});
    const std::span<uint8_t> bytes(data.data(), range.size());
    RETURN_IF_ERROR(read(range, bytes));
    root = hasher.OfBlock(bytes);
    if (!layout.has_tree()) break;
    const uint64_t slot = block % VerityLayout::kHashesPerBlock;
    if (slot == 0 && block > 0) RETURN_IF_ERROR(close(0));
    RETURN_IF_ERROR(add(0, layout.LeafOf(block), slot, root));
  }
  for (size_t level = 0; level < levels.size(); ++level) RETURN_IF_ERROR(close(level));
  return hasher.OfFile(size_bytes, root);
}

}  // namespace cachecore
