// VerifiedStrategy: what is fetched next of an object with a digest, and which origin may serve it.
//
// Model    a data block is fetched once the tree blocks above it are here and right.  An
//          origin that had a block wrong is not asked for that block again.  A block that no origin
//          can give is lost: the READs that miss it fail, and a later READ asks every origin again.
//          Pure: it decides from the tree and the states of the origins; its caller fetches.
// Errors   a step of kind kLost.
// Threads  the event loop's.
// Owns     the object's tree.
// See      fetcher/engine/object_tree.h, fetcher/engine/origin_set.h.

#ifndef FETCHER_ENGINE_VERIFIED_STRATEGY_H_
#define FETCHER_ENGINE_VERIFIED_STRATEGY_H_

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "cachecore/base/byte_range.h"
#include "fetcher/engine/object_tree.h"
#include "fetcher/engine/origin_set.h"

namespace fetcher {

// What to do next for bytes that are wanted.
struct FetchStep {
  enum class Kind {
    kData,  // Fetch data up to `end`.
    kTree,  // Fetch the part of the tree with `block` first.
    kLost,  // No origin can give the data up to `end`.
  };
  Kind kind = Kind::kData;
  uint64_t end = 0;
  OriginMask without = 0;  // Those that are not asked, or have had it wrong.
  bool is_tree = false;    // The tree above it is what is lacking.
  uint64_t block = 0;      // That block of it, or, if a READ is lost, of the data.
};

class VerifiedStrategy {
 public:
  // `origins` outlives this.  `key` and `merkle_key` name data and tree at each of them.
  VerifiedStrategy(ObjectTree tree, const OriginSet* origins, std::string key,
                   std::string merkle_key, uint64_t size_bytes, uint64_t max_range)
      : origins_(origins),
        key_(std::move(key)),
        merkle_key_(std::move(merkle_key)),
        size_bytes_(size_bytes),
        max_range_(max_range),
        tree_(std::move(tree)) {}

  // For the data from `begin` on.  `out` are the origins that have refused.
  FetchStep Next(uint64_t begin, OriginMask out) const;
  // No origin can give `range`, as Next has found.  Returns the cause, as a sentence.
  std::string Lose(const FetchStep& step, ByteRange range, OriginMask out);
  // For one READ, all of which comes from one origin.  The `end` of the step is the READ's.
  FetchStep ForRead(ByteRange range, OriginMask out) const;
  // ForRead has found that no origin can give it.  Returns the cause, as a sentence.
  std::string LoseRead(const FetchStep& step, OriginMask out);
  // The step to the tree above `begin`, before data is wanted there; nullopt if there is none.
  std::optional<FetchStep> TreeAhead(uint64_t begin) const;
  // The part of the tree to fetch in order to get that block.
  ByteRange TakeChunk(uint64_t tree_block);

  // Takes what an origin has brought of the tree.  False if something of it is wrong.
  bool TakeTree(size_t index, uint64_t offset, std::span<const char> bytes);
  // An origin had that block wrong.  Returns the cause, as a sentence.
  std::string OnWrongBlock(size_t index, ByteRange block);

  // The whole blocks that `range` is part of: no other bytes can be checked.
  ByteRange Widen(ByteRange range) const;
  // Every tree block above `range`.  REQUIRES: they are here, as Next and ForRead say.
  ObjectTree::Blocks PathsOf(ByteRange range) const;
  ObjectTree* tree() { return &tree_; }

 private:
  // By block: which origins have had it wrong.
  using WrongBlocks = std::map<uint64_t, OriginMask>;

  // The step to a tree block that is not here, data behind it ending at `end`.
  FetchStep ToTree(uint64_t tree_block, uint64_t end, OriginMask out) const;
  // A piece from `begin` on: its tree is here, and the same origins have had it wrong.
  FetchStep Run(uint64_t begin) const;
  std::string OriginsOf(OriginMask mask, const std::string& key, OriginMask out) const;

  const OriginSet* const origins_;
  const std::string key_;
  const std::string merkle_key_;
  const uint64_t size_bytes_;
  const uint64_t max_range_;
  ObjectTree tree_;
  ByteRange last_chunk_;
  WrongBlocks wrong_blocks_;
  WrongBlocks wrong_tree_blocks_;
};

}  // namespace fetcher

#endif  // FETCHER_ENGINE_VERIFIED_STRATEGY_H_
