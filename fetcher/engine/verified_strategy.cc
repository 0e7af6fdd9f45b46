#include "fetcher/engine/verified_strategy.h"

#include <glog/logging.h>

#include <algorithm>
#include <utility>

namespace fetcher {

using cachecore::kVerityBlock;
using StepKind = FetchStep::Kind;

FetchStep VerifiedStrategy::ToTree(uint64_t tree_block, uint64_t end, OriginMask out) const {
  const auto wrong = wrong_tree_blocks_.find(tree_block);
  const OriginMask without = wrong == wrong_tree_blocks_.end() ? 0 : wrong->second;
  const bool is_lost = wrong != wrong_tree_blocks_.end() && (without | out) == origins_->all();
  return {is_lost ? StepKind::kLost : StepKind::kTree, end, without, /*is_tree=*/true, tree_block};
}

FetchStep VerifiedStrategy::Run(uint64_t begin) const {
  uint64_t end = std::min(size_bytes_, begin + max_range_);
  auto wrong = wrong_blocks_.lower_bound(begin / kVerityBlock);
  OriginMask without = 0;
  if (wrong != wrong_blocks_.end() && wrong->first == begin / kVerityBlock) {
    without = wrong->second;
    uint64_t block = wrong->first;
    while (wrong != wrong_blocks_.end() && wrong->first == block && wrong->second == without) {
      ++wrong;
      ++block;
    }
    end = std::min(end, block * kVerityBlock);
  } else if (wrong != wrong_blocks_.end()) {
    end = std::min(end, wrong->first * kVerityBlock);
  }
  if (!tree_.layout().has_tree()) return {StepKind::kData, end, without};
  uint64_t here = begin;
  while (here < end && !tree_.Missing(here / kVerityBlock, nullptr)) {
    here = tree_.layout().CoveredBy(tree_.layout().LeafOf(here / kVerityBlock)).end;
  }
  return {StepKind::kData, std::min(here, end), without};
}

FetchStep VerifiedStrategy::Next(uint64_t begin, OriginMask out) const {
  if (const auto missing = tree_.Missing(begin / kVerityBlock, nullptr)) {
    const uint64_t leaf = tree_.layout().LeafOf(begin / kVerityBlock);
    return ToTree(*missing, tree_.layout().CoveredBy(leaf).end, out);
  }
  FetchStep step = Run(begin);
  if (step.without != 0 && (step.without | out) == origins_->all()) step.kind = StepKind::kLost;
  return step;
}

std::string VerifiedStrategy::Lose(const FetchStep& step, ByteRange range, OriginMask out) {
  std::string why = "object " + key_ + ": ";
  if (step.is_tree) {
    why += "block " + std::to_string(step.block) + " of the Merkle tree over bytes " +
           range.ToString() + " is wrong at " + OriginsOf(step.without, merkle_key_, out);
    wrong_tree_blocks_.erase(step.block);
  } else {
    why += "bytes " + range.ToString() + " are wrong at " + OriginsOf(step.without, key_, out);
  }
  // A later READ asks every origin again: one of them may have been repaired.
  const uint64_t end = (range.end + kVerityBlock - 1) / kVerityBlock;
  wrong_blocks_.erase(wrong_blocks_.lower_bound(range.begin / kVerityBlock),
                      wrong_blocks_.lower_bound(end));
  return why;
}

FetchStep VerifiedStrategy::ForRead(ByteRange range, OriginMask out) const {
  FetchStep step{StepKind::kData, range.end};
  for (uint64_t block = range.begin / kVerityBlock; block * kVerityBlock < range.end; ++block) {
    if (const auto missing = tree_.Missing(block, nullptr)) return ToTree(*missing, range.end, out);
    const auto wrong = wrong_blocks_.find(block);
    if (wrong == wrong_blocks_.end()) continue;
    if ((wrong->second | out) == origins_->all()) {
      return {StepKind::kLost, range.end, wrong->second, /*is_tree=*/false, block};
    }
    step.without |= wrong->second;
  }
  return step;
}

std::string VerifiedStrategy::LoseRead(const FetchStep& step, OriginMask out) {
  if (step.is_tree) {
    wrong_tree_blocks_.erase(step.block);
    return "object " + key_ + ": block " + std::to_string(step.block) +
           " of its Merkle tree is wrong at " + OriginsOf(step.without, merkle_key_, out);
  }
  wrong_blocks_.erase(step.block);
  return "object " + key_ + ": the block at offset " + std::to_string(step.block * kVerityBlock) +
         " is wrong at " + OriginsOf(step.without, key_, out);
}

std::optional<FetchStep> VerifiedStrategy::TreeAhead(uint64_t begin) const {
  if (begin >= size_bytes_) return std::nullopt;
  const auto missing = tree_.Missing(begin / kVerityBlock, nullptr);
  if (!missing || wrong_tree_blocks_.count(*missing) > 0) return std::nullopt;
  return FetchStep{StepKind::kTree, begin, 0, /*is_tree=*/true, *missing};
}

ByteRange VerifiedStrategy::TakeChunk(uint64_t tree_block) {
  last_chunk_ = tree_.ChunkOf(tree_block, last_chunk_);
  return last_chunk_;
}

bool VerifiedStrategy::TakeTree(size_t index, uint64_t offset, std::span<const char> bytes) {
  const std::vector<uint64_t> wrong = tree_.Take(offset, bytes);
  for (const uint64_t block : wrong) {
    OriginMask& mask = wrong_tree_blocks_[block];
    LOG_IF(WARNING, (mask >> index & 1) == 0)
        << "object " << key_ << ": " << origins_->at(index)->backend->Describe(merkle_key_)
        << ": the tree block at offset " << block * kVerityBlock << " is not what the digest says";
    mask |= OriginMask{1} << index;
  }
  return wrong.empty();
}

std::string VerifiedStrategy::OnWrongBlock(size_t index, ByteRange block) {
  const std::string cause = origins_->at(index)->backend->Describe(key_) + ": bytes " +
                            block.ToString() + " are not what the digest says";
  OriginMask& mask = wrong_blocks_[block.begin / kVerityBlock];
  LOG_IF(WARNING, (mask >> index & 1) == 0) << "object " << key_ << ": " << cause;
  mask |= OriginMask{1} << index;
  return cause;
}

ByteRange VerifiedStrategy::Widen(ByteRange range) const {
  return {range.begin - range.begin % kVerityBlock,
          std::min(size_bytes_, (range.end + kVerityBlock - 1) / kVerityBlock * kVerityBlock)};
}

ObjectTree::Blocks VerifiedStrategy::PathsOf(ByteRange range) const {
  ObjectTree::Blocks paths;
  for (uint64_t at = range.begin; tree_.layout().has_tree() && at < range.end;
       at = tree_.layout().CoveredBy(tree_.layout().LeafOf(at / kVerityBlock)).end) {
    CHECK(!tree_.Missing(at / kVerityBlock, &paths)) << "the tree is smaller than a piece of it";
  }
  return paths;
}

std::string VerifiedStrategy::OriginsOf(OriginMask mask, const std::string& key,
                                        OriginMask out) const {
  return origins_->Describe(mask, key) +
         (mask == out || out == 0 ? "" : "; other origins have refused");
}

}  // namespace fetcher
