#include "fetcher/engine/object_tree.h"

#include <algorithm>
#include <cstring>

namespace fetcher {

using cachecore::BlockHasher;
using cachecore::ByteRange;
using cachecore::Digest;
using cachecore::HashIs;
using cachecore::kVerityBlock;

namespace {

std::span<const uint8_t> AsBytes(std::span<const char> chars) {
  return {reinterpret_cast<const uint8_t*>(chars.data()), chars.size()};
}

}  // namespace

std::optional<uint64_t> ObjectTree::Missing(uint64_t data_block, Blocks* path) const {
  for (const uint64_t number : layout_.PathTo(data_block)) {
    TreeBlockPtr block = cache_->Find(owner_, number);
    if (block == nullptr) return number;
    if (path != nullptr) path->emplace(number, std::move(block));
  }
  return std::nullopt;
}

ByteRange ObjectTree::ChunkOf(uint64_t tree_block, ByteRange last) const {
  const uint64_t begin = tree_block * kVerityBlock / kChunk * kChunk;
  const bool goes_on = begin > 0 && begin == last.end;
  const uint64_t size = goes_on ? std::clamp(2 * last.size(), kChunk, kLargestChunk) : kChunk;
  return {begin, std::min(begin + size, layout_.tree_bytes())};
}

std::vector<uint64_t> ObjectTree::Take(uint64_t offset, std::span<const char> bytes) {
  std::vector<uint64_t> wrong;
  for (; bytes.size() >= kVerityBlock;
       bytes = bytes.subspan(kVerityBlock), offset += kVerityBlock) {
    const uint64_t number = offset / kVerityBlock;
    const auto parent_number = layout_.ParentOf(number);
    const TreeBlockPtr parent = parent_number ? cache_->Find(owner_, *parent_number) : nullptr;
    if (parent_number && parent == nullptr) continue;  // Its hash is not known.
    auto block = std::make_shared<TreeBlock>();
    std::memcpy(block->data(), bytes.data(), kVerityBlock);
    const Digest hash = BlockHasher::OfThisThread().OfBlock(*block);
    if (parent ? HashIs(*parent, layout_.SlotOf(number), hash)
               : BlockHasher::OfThisThread().OfFile(layout_.size_bytes(), hash) == digest_) {
      cache_->Add(owner_, number, std::move(block));
    } else {
      wrong.push_back(number);
    }
  }
  return wrong;
}

bool ObjectTree::IsRight(uint64_t data_block, const TreeBlock* leaf, const Digest& hash) const {
  if (leaf == nullptr) {
    return BlockHasher::OfThisThread().OfFile(layout_.size_bytes(), hash) == digest_;
  }
  return HashIs(*leaf, data_block % cachecore::VerityLayout::kHashesPerBlock, hash);
}

std::span<const Digest> ObjectTree::HashesOf(std::span<const char> bytes) {
  const size_t count = (bytes.size() + kVerityBlock - 1) / kVerityBlock;
  if (hashes_.size() < count) hashes_.resize(count);
  BlockHasher::OfThisThread().OfBlocks(AsBytes(bytes), hashes_);
  return {hashes_.data(), count};
}

}  // namespace fetcher
