// verity_tree: fs-verity's Merkle tree over an object: SHA-256, blocks of 4 KiB, no salt.
//
// Model    the tree file is what `fsverity digest --out-merkle-tree` writes: levels of 4 KiB blocks
//          of hashes, the root's first; block numbers here count from that file's start, so the
//          root is 0.  The digest is that of the descriptor, which holds size and root hash: so it
//          authenticates the size too.  An object of at most one block has no tree; its root hash
//          is the block's own (all zeros for the empty object).
// Units    data and tree blocks of kVerityBlock bytes; a last data block that is short counts as
//          padded with zeros.
// Errors   checks say yes or no; ParseDigest: EINVAL.
// Threads  VerityLayout is immutable.
// See      docs/format.md "Merkle trees"; fsverity(1).

#ifndef CACHECORE_VERITY_VERITY_TREE_H_
#define CACHECORE_VERITY_VERITY_TREE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cachecore/base/byte_range.h"
#include "cachecore/base/status.h"
#include "cachecore/verity/block_hasher.h"

namespace cachecore {

using TreeBlock = std::array<uint8_t, kVerityBlock>;
using TreeBlockPtr = std::shared_ptr<const TreeBlock>;

// "sha256:HEX" or HEX.
Result<Digest> ParseDigest(std::string_view text);
// "sha256:hex".
std::string DigestText(const Digest& digest);

class VerityLayout {
 public:
  static constexpr uint64_t kHashesPerBlock = kVerityBlock / sizeof(Digest);

  explicit VerityLayout(uint64_t size_bytes);

  uint64_t size_bytes() const { return size_bytes_; }
  uint64_t data_blocks() const { return data_blocks_; }
  uint64_t tree_blocks() const { return tree_blocks_; }
  uint64_t tree_bytes() const { return tree_blocks_ * kVerityBlock; }
  bool has_tree() const { return tree_blocks_ > 0; }

  // The tree block with a data block's hash, and the data that such a block covers.
  // REQUIRES: has_tree().
  uint64_t LeafOf(uint64_t data_block) const { return leaves_ + data_block / kHashesPerBlock; }
  ByteRange CoveredBy(uint64_t leaf) const;
  // The tree block with a tree block's hash; nullopt for the root.
  std::optional<uint64_t> ParentOf(uint64_t tree_block) const;
  // The tree blocks from the root down to the leaf of a data block.
  std::vector<uint64_t> PathTo(uint64_t data_block) const;
  // Which of its parent's hashes is a tree block's.
  uint64_t SlotOf(uint64_t tree_block) const;

  // Where the tree is kept in an object's data file, behind the object.
  uint64_t tail_offset() const;
  uint64_t tail_end() const { return tail_offset() + tree_bytes(); }

 private:
  uint64_t size_bytes_;
  uint64_t data_blocks_;
  uint64_t tree_blocks_ = 0;
  uint64_t leaves_ = 0;                 // The first block of the lowest level.
  std::vector<uint64_t> level_starts_;  // From the root down.
};

// Whether a block is the one whose hash stands in `slot` of its parent.
bool HashIs(const TreeBlock& parent, uint64_t slot, const Digest& hash);

// Builds the tree of an object whose blocks `read` gives, one after the other (the last may be
// short); returns its digest and hands every tree block out, in no particular order.
Result<Digest> BuildTree(uint64_t size_bytes,
                         const std::function<Status(ByteRange, std::span<uint8_t>)>& read,
                         const std::function<Status(uint64_t tree_block, const TreeBlock&)>& write);

}  // namespace cachecore

#endif  // CACHECORE_VERITY_VERITY_TREE_H_
