#include "cachecore/values/presence_map.h"

#include <glog/logging.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace cachecore {
namespace {

uint64_t BlocksUpTo(uint64_t bytes) { return bytes / kBlockSize + (bytes % kBlockSize != 0); }

// The part of blocks [begin, end) that lies in one leaf, as indexes within it.
struct LeafWindow {
  uint32_t leaf;
  uint32_t begin;
  uint32_t end;
  uint64_t first_block;  // Of the leaf.
};

LeafWindow WindowAt(uint64_t block, uint64_t end) {
  const auto leaf = static_cast<uint32_t>(block / PresenceLeaf::kBlocks);
  const uint64_t first = uint64_t{leaf} * PresenceLeaf::kBlocks;
  return {leaf, static_cast<uint32_t>(block - first),
          static_cast<uint32_t>(std::min<uint64_t>(end - first, PresenceLeaf::kBlocks)), first};
}

// What a std::map node costs beside its value: colour, three pointers, key, malloc's header.
constexpr size_t kNodeOverhead = 56;

}  // namespace

PresenceMap::PresenceMap(uint64_t size_bytes) : size_bytes_(size_bytes) {
  CHECK_LE(size_bytes, kMaxObjectSize);
}

uint64_t PresenceMap::BlockCount() const { return BlocksUpTo(size_bytes_); }

uint32_t PresenceMap::BlocksInLeaf(uint32_t leaf_index) const {
  const uint64_t first = uint64_t{leaf_index} * PresenceLeaf::kBlocks;
  const uint64_t count = BlockCount();
  if (first >= count) return 0;
  return static_cast<uint32_t>(std::min<uint64_t>(count - first, PresenceLeaf::kBlocks));
}

ByteRange PresenceMap::RoundInward(ByteRange range) const {
  const uint64_t begin = BlocksUpTo(std::min(range.begin, size_bytes_)) * kBlockSize;
  const uint64_t end = range.end >= size_bytes_ ? size_bytes_ : range.end - range.end % kBlockSize;
  return {std::min(begin, size_bytes_), std::max(std::min(begin, size_bytes_), end)};
}

ByteRange PresenceMap::Add(ByteRange range) {
  const ByteRange rounded = RoundInward(range);
  if (rounded.empty()) return rounded;
  const uint64_t end = BlocksUpTo(rounded.end);
  for (uint64_t block = rounded.begin / kBlockSize; block < end;) {
    const LeafWindow window = WindowAt(block, end);
    PresenceLeaf& leaf = leaves_[window.leaf];
    if (!leaf.full()) present_blocks_ += leaf.Add(window.begin, window.end);
    block = window.first_block + window.end;
  }
  if (rounded.end == size_bytes_) last_block_present_ = true;
  return rounded;
}

bool PresenceMap::Covers(ByteRange range) const {
  const uint64_t end = std::min(range.end, size_bytes_);
  return range.begin >= end || FirstMissing(range) == end;
}

void PresenceMap::Remove(ByteRange range) {
  range = range.Intersect({0, size_bytes_});
  if (range.empty()) return;
  const uint64_t end = BlocksUpTo(range.end);
  for (uint64_t block = range.begin / kBlockSize; block < end;) {
    const LeafWindow window = WindowAt(block, end);
    const auto leaf = leaves_.find(window.leaf);
    if (leaf != leaves_.end()) {
      present_blocks_ -= leaf->second.Remove(window.begin, window.end);
      if (leaf->second.count() == 0) leaves_.erase(leaf);
    }
    block = window.first_block + window.end;
  }
  if (end == BlockCount()) last_block_present_ = false;
}

uint64_t PresenceMap::FirstMissing(ByteRange window) const {
  const uint64_t end_byte = std::min(window.end, size_bytes_);
  if (window.begin >= end_byte) return end_byte;
  const uint64_t end = BlocksUpTo(end_byte);
  uint64_t block = window.begin / kBlockSize;
  auto it = leaves_.find(static_cast<uint32_t>(block / PresenceLeaf::kBlocks));
  while (block < end) {
    const LeafWindow part = WindowAt(block, end);
    if (it == leaves_.end() || it->first != part.leaf) break;
    const uint32_t missing = it->second.FirstMissing(part.begin, part.end);
    block = part.first_block + missing;
    if (missing < part.end) break;
    ++it;
  }
  return std::clamp(block * kBlockSize, window.begin, end_byte);
}

uint64_t PresenceMap::FirstPresent(ByteRange window) const {
  const uint64_t end_byte = std::min(window.end, size_bytes_);
  if (window.begin >= end_byte) return end_byte;
  const uint64_t end = BlocksUpTo(end_byte);
  const uint64_t begin = window.begin / kBlockSize;
  auto it = leaves_.lower_bound(static_cast<uint32_t>(begin / PresenceLeaf::kBlocks));
  for (; it != leaves_.end(); ++it) {
    const uint64_t block = std::max(begin, uint64_t{it->first} * PresenceLeaf::kBlocks);
    if (block >= end) break;
    const LeafWindow part = WindowAt(block, end);
    const uint32_t present = it->second.FirstPresent(part.begin, part.end);
    if (present < part.end) {
      return std::max((part.first_block + present) * kBlockSize, window.begin);
    }
  }
  return end_byte;
}

std::vector<ByteRange> PresenceMap::Gaps(ByteRange window) const {
  std::vector<ByteRange> gaps;
  const uint64_t end = std::min(window.end, size_bytes_);
  for (uint64_t position = window.begin; position < end;) {
    const uint64_t begin = FirstMissing({position, end});
    if (begin == end) break;
    position = FirstPresent({begin, end});
    gaps.push_back({begin, position});
  }
  return gaps;
}

uint64_t PresenceMap::present_bytes() const {
  const uint64_t past_end = last_block_present_ ? BlockCount() * kBlockSize - size_bytes_ : 0;
  return present_blocks_ * kBlockSize - past_end;
}

size_t PresenceMap::memory_bytes() const {
  size_t bytes = sizeof(PresenceMap);
  for (const auto& [index, leaf] : leaves_) bytes += kNodeOverhead + leaf.memory_bytes();
  return bytes;
}

Status PresenceMap::MergeLeaf(uint32_t leaf_index, std::string_view encoded) {
  PresenceLeaf incoming;
  uint32_t added = 0;
  RETURN_IF_ERROR(incoming.Merge(encoded, &added));
  const uint32_t blocks = BlocksInLeaf(leaf_index);
  if (incoming.FirstPresent(blocks, PresenceLeaf::kBlocks) != PresenceLeaf::kBlocks) {
    return Status(EBADMSG, "presence leaf " + std::to_string(leaf_index) +
                               " has blocks past the object's end at " +
                               std::to_string(size_bytes_));
  }
  if (incoming.count() == 0) return Status();
  if (uint64_t{leaf_index} * PresenceLeaf::kBlocks + blocks == BlockCount() &&
      incoming.FirstPresent(blocks - 1, blocks) == blocks - 1) {
    last_block_present_ = true;
  }
  const auto [it, is_new] = leaves_.try_emplace(leaf_index);
  if (is_new) {
    it->second = std::move(incoming);
  } else {
    RETURN_IF_ERROR(it->second.Merge(encoded, &added));
  }
  present_blocks_ += added;
  return Status();
}

}  // namespace cachecore
