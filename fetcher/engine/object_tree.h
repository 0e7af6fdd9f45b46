// ObjectTree: an object's digest, and what is known of the Merkle tree below it.
//
// Model    tree blocks come in chunks from an origin and are taken one by one, each only if the one
//          above it has its hash; taken ones are in the TreeCache, as long as there is room.
// Errors   none: wrong blocks are named.
// Threads  thread-compatible.
// See      cachecore/verity/verity_tree.h.

#ifndef FETCHER_ENGINE_OBJECT_TREE_H_
#define FETCHER_ENGINE_OBJECT_TREE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "cachecore/base/byte_range.h"
#include "cachecore/verity/tree_cache.h"
#include "cachecore/verity/verity_tree.h"

namespace fetcher {

using cachecore::TreeBlock;
using cachecore::TreeBlockPtr;

class ObjectTree {
 public:
  // Of the tree, fetched at a time: enough for 16 MiB of data, and up to 64 MiB when it goes on
  // where the last one ended.
  static constexpr uint64_t kChunk = 128 << 10;
  static constexpr uint64_t kLargestChunk = 512 << 10;
  using Blocks = std::map<uint64_t, TreeBlockPtr>;  // By number.

  // `cache` outlives this; `owner` names the object in it.
  ObjectTree(const cachecore::Digest& digest, uint64_t size_bytes, cachecore::TreeCache* cache,
             uint64_t owner)
      : digest_(digest), layout_(size_bytes), cache_(cache), owner_(owner) {}

  const cachecore::VerityLayout& layout() const { return layout_; }

  // The first block on the way from the root to a data block that is not here; nullopt if all are,
  // and then `path`, unless null, has them.
  std::optional<uint64_t> Missing(uint64_t data_block, Blocks* path) const;
  // The part of the tree to fetch in order to get one block, in bytes, after the part `last`.
  cachecore::ByteRange ChunkOf(uint64_t tree_block, cachecore::ByteRange last) const;
  // Takes bytes of the tree, whole blocks from `offset` on.  Returns those that are wrong.
  std::vector<uint64_t> Take(uint64_t offset, std::span<const char> bytes);
  // Whether that is a block's hash.  `leaf` is the tree block above it, null without a tree.
  bool IsRight(uint64_t data_block, const TreeBlock* leaf, const cachecore::Digest& hash) const;
  // Of each block of `bytes`, good until the next call.
  std::span<const cachecore::Digest> HashesOf(std::span<const char> bytes);

 private:
  cachecore::Digest digest_;
  cachecore::VerityLayout layout_;
  cachecore::TreeCache* cache_;
  uint64_t owner_;
  std::vector<cachecore::Digest> hashes_;
};

}  // namespace fetcher

#endif  // FETCHER_ENGINE_OBJECT_TREE_H_
