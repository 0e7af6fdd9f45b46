// ObjectFetcher's objects with a digest: their Merkle tree, and who may serve which block.

#include <glog/logging.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "fetcher/object_fetcher.h"
#include "fetcher/object_piece.h"

namespace fetcher {

using cachecore::kVerityBlock;
using cachecore::VerityLayout;

// ---- Opening: the digest is that of size and root hash

void ObjectFetcher::StartRootCheck(size_t index, const ObjectVersion& version) {
  const VerityLayout layout(version.size_bytes);
  if (version.size_bytes == 0) return OnRootFetched(index, version, {});
  ByteRange range{0, version.size_bytes};  // One block: its hash is the root hash.
  ObjectVersion fetched = version;
  if (layout.has_tree()) {
    range = {0, std::min(ObjectTree::kChunk, layout.tree_bytes())};
    fetched = {layout.tree_bytes(), Pin{}};
  }
  const std::string key = layout.has_tree() ? merkle_key_ : key_;
  tree_piece_ = std::make_unique<TreePiece>(this, index, key, range);
  tree_piece_->object_version = version;
  tree_piece_->Start(fetched);
}

void ObjectFetcher::OnRootFetched(size_t index, const ObjectVersion& version,
                                  std::span<const char> bytes) {
  OriginState& state = origins_[index];
  ObjectTree tree(*verity_, version.size_bytes, context_->trees, open_order_);
  context_->trees->Forget(open_order_);  // Of an origin that has said another size.
  bool right;
  if (tree.layout().has_tree()) {
    (void)tree.Take(0, bytes);
    right = context_->trees->Find(open_order_, 0) != nullptr;
  } else if (version.size_bytes > 0) {
    right = tree.IsRight(0, nullptr, tree.HashesOf(bytes).front());
  } else {
    right = cachecore::BlockHasher::OfThisThread().OfFile(0, {}) == *verity_;
  }
  std::optional<Failure> failure;
  if (right) {
    failure = PinOrigin(index, version);
  } else {
    const std::string tree_text =
        tree.layout().has_tree()
            ? ", or " + state.origin->backend->Describe(merkle_key_) + " is not its Merkle tree"
            : "";
    failure = Failure{Failure::Kind::kRefused, EBADMSG,
                      state.origin->backend->Describe(key_) + ": is not the file of digest " +
                          cachecore::DigestText(*verity_) + tree_text};
  }
  if (failure) return OnFailure(index, *failure);
  Served(&state);
  tree_.emplace(std::move(tree));
  Opened();
}

// ---- The tree

bool ObjectFetcher::StartTree(uint64_t tree_block) {
  if (tree_piece_) return false;
  const auto wrong = wrong_tree_blocks_.find(tree_block);
  const auto index = PickOrigin(wrong == wrong_tree_blocks_.end() ? 0 : wrong->second,
                                NextOrder().value_or(last_order_));
  if (!index) return false;
  const ByteRange chunk = tree_->ChunkOf(tree_block, last_tree_chunk_);
  last_tree_chunk_ = chunk;
  tree_piece_ = std::make_unique<TreePiece>(this, *index, merkle_key_, chunk);
  // Any version of it: what it says is checked.
  tree_piece_->Start({tree_->layout().tree_bytes(), Pin{}});
  return true;
}

void ObjectFetcher::StartTreeAhead(uint64_t begin) {
  if (begin >= attr_.size_bytes) return;
  const auto missing = tree_->Missing(begin / kVerityBlock, nullptr);
  if (missing && wrong_tree_blocks_.count(*missing) == 0) (void)StartTree(*missing);
}

void ObjectFetcher::OnTreeEnd(std::optional<Failure> failure) {
  const std::unique_ptr<TreePiece> ended = std::move(tree_piece_);
  const size_t index = ended->index();
  OriginState& state = origins_[index];
  const std::string tree = state.origin->backend->Describe(merkle_key_);
  const bool is_of_tree = ended->key() == merkle_key_;
  if (failure && failure->kind == Failure::Kind::kChanged && ended->version().pin.kind.empty()) {
    failure->kind = Failure::Kind::kRefused;
    failure->cause = tree + ": is not of the size that the object's Merkle tree has";
  }
  // The object is there: its tree is what is not.
  if (failure && failure->error == ENOENT && is_of_tree) {
    failure->error = EBADMSG;
    failure->cause += " (the object's Merkle tree)";
  }
  if (!open_) {
    if (failure) return OnFailure(index, *failure);
    return OnRootFetched(index, ended->object_version, ended->bytes());
  }
  const std::vector<uint64_t> wrong = tree_->Take(ended->range().begin, ended->bytes());
  for (const uint64_t block : wrong) {
    OriginMask& mask = wrong_tree_blocks_[block];
    if ((mask >> index & 1) == 0) {
      LOG(WARNING) << "object " << key_ << ": " << state.origin->backend->Describe(merkle_key_)
                   << ": the tree block at offset " << block * kVerityBlock
                   << " is not what the digest says";
    }
    mask |= OriginMask{1} << index;
  }
  if (failure) return OnFailure(index, *failure);
  if (wrong.empty()) {
    Served(&state);
  } else {
    (void)state.policy.NextDelay();
  }
}

// ---- Pieces

uint64_t ObjectFetcher::EndOfRun(uint64_t begin, OriginMask* without) const {
  const uint64_t size = attr_.size_bytes;
  uint64_t end = std::min(size, begin + context_->options.max_range);
  auto wrong = wrong_blocks_.lower_bound(begin / kVerityBlock);
  *without = 0;
  if (wrong != wrong_blocks_.end() && wrong->first == begin / kVerityBlock) {
    *without = wrong->second;
    uint64_t block = wrong->first;
    while (wrong != wrong_blocks_.end() && wrong->first == block && wrong->second == *without) {
      ++wrong;
      ++block;
    }
    end = std::min(end, block * kVerityBlock);
  } else if (wrong != wrong_blocks_.end()) {
    end = std::min(end, wrong->first * kVerityBlock);
  }
  if (!tree_->layout().has_tree()) return end;
  uint64_t here = begin;
  while (here < end && !tree_->Missing(here / kVerityBlock, nullptr)) {
    here = tree_->layout().CoveredBy(tree_->layout().LeafOf(here / kVerityBlock)).end;
  }
  return std::min(here, end);
}

bool ObjectFetcher::StartVerified(bool alone) {
  const uint64_t begin = queue_.NextBegin();
  const OriginMask all = static_cast<OriginMask>((uint64_t{1} << origins_.size()) - 1);
  if (const auto missing = tree_->Missing(begin / kVerityBlock, nullptr)) {
    const auto wrong = wrong_tree_blocks_.find(*missing);
    if (wrong == wrong_tree_blocks_.end() || (wrong->second | OutMask()) != all) {
      return StartTree(*missing);
    }
    const uint64_t leaf = tree_->layout().LeafOf(begin / kVerityBlock);
    const ByteRange range = queue_.Take(tree_->layout().CoveredBy(leaf).end - begin, 1);
    const std::string why = "block " + std::to_string(*missing) +
                            " of the Merkle tree over bytes " + range.ToString() + " is wrong at " +
                            OriginsOf(wrong->second, merkle_key_);
    wrong_tree_blocks_.erase(wrong);
    Lose(range, why);
    return true;
  }
  OriginMask without = 0;
  const uint64_t end = EndOfRun(begin, &without);
  if (without != 0 && (without | OutMask()) == all) {
    const ByteRange range = queue_.Take(end - begin, 1);
    Lose(range, "bytes " + range.ToString() + " are wrong at " + OriginsOf(without, key_));
    return true;
  }
  const std::optional<size_t> index = PickOrigin(without, NextOrder().value());
  if (!index) return false;
  if (!IsPinned(*index)) {
    StartProbe(*index);
    return true;
  }
  // A sequential reader need not wait for the next part of the tree if it is asked for early.
  // Behind the data it would find no connection while there is a lot of that.
  if (origins_[*index].origin->idle() > 1 || !pieces_.empty()) StartTreeAhead(end);
  const Origin& origin = *origins_[*index].origin;
  if (origin.idle() == 0) return false;
  StartVerifiedPiece(*index, queue_.Take(end - begin, alone ? origin.max_transfers : 1));
  return true;
}

void ObjectFetcher::StartVerifiedPiece(size_t index, ByteRange range) {
  OriginState& state = origins_[index];
  // Whole blocks, whatever was asked for: no other bytes can be checked.
  const ByteRange wide{
      range.begin - range.begin % kVerityBlock,
      std::min(attr_.size_bytes, (range.end + kVerityBlock - 1) / kVerityBlock * kVerityBlock)};
  ObjectTree::Blocks tree;
  for (uint64_t at = wide.begin; tree_->layout().has_tree() && at < wide.end;
       at = tree_->layout().CoveredBy(tree_->layout().LeafOf(at / kVerityBlock)).end) {
    CHECK(!tree_->Missing(at / kVerityBlock, &tree)) << "the tree is smaller than a piece of it";
  }
  pieces_.push_back(std::make_unique<VerifiedPiece>(this, index, wide, std::move(tree)));
  pieces_.back()->Start(state.origin->backend.get(),
                        {key_, wide, VersionAt(state), -1, state.doubt.has_value()});
}

void ObjectFetcher::OnWrongBlock(size_t index, ByteRange block) {
  const std::string cause = origins_[index].origin->backend->Describe(key_) + ": bytes " +
                            block.ToString() + " are not what the digest says";
  OriginMask& mask = wrong_blocks_[block.begin / kVerityBlock];
  if ((mask >> index & 1) == 0) LOG(WARNING) << "object " << key_ << ": " << cause;
  mask |= OriginMask{1} << index;
  for (const MsgId id : queue_.Missing(block)) {
    Trouble& trouble = TroubleOf(id);
    trouble.cause = cause;
    context_->client->Cause(id, cause);
  }
  queue_.Return(block);
}

ObjectFetcher::OriginMask ObjectFetcher::OutMask() const {
  OriginMask mask = 0;
  const uint64_t order = NextOrder().value_or(last_order_);
  for (size_t i = 0; i < origins_.size(); ++i) {
    const std::optional<uint64_t>& out = origins_[i].out_through;
    if (out && order <= *out) mask |= OriginMask{1} << i;
  }
  return mask;
}

std::string ObjectFetcher::OriginsOf(OriginMask mask, const std::string& key) const {
  std::string text;
  for (size_t i = 0; i < origins_.size(); ++i) {
    if ((mask >> i & 1) == 0) continue;
    text += (text.empty() ? "" : ", ") + origins_[i].origin->backend->Describe(key);
  }
  return text + (mask == OutMask() || OutMask() == 0 ? "" : "; other origins have refused");
}

void ObjectFetcher::Lose(ByteRange range, const std::string& why) {
  lost_why_ = "object " + key_ + ": " + why;
  queue_.Lose(range);
  // A later READ asks again, and asks everybody: whoever looks after them may have put it right.
  const uint64_t end = (range.end + kVerityBlock - 1) / kVerityBlock;
  wrong_blocks_.erase(wrong_blocks_.lower_bound(range.begin / kVerityBlock),
                      wrong_blocks_.lower_bound(end));
  FailHopeless();
}

void ObjectFetcher::FailHopeless() {
  for (const MsgId id : queue_.Hopeless()) FailRead(id, {Failure::Kind::kRefused, EIO, lost_why_});
}

}  // namespace fetcher
