// ObjectFetcher's transfers for objects with a digest, as VerifiedStrategy asks for them.

#include <cerrno>
#include <utility>

#include "fetcher/engine/object_fetcher.h"
#include "fetcher/engine/object_piece.h"

namespace fetcher {

// ---- The tree

void ObjectFetcher::Verify(ObjectTree tree) {
  verified_.emplace(std::move(tree), &origins_, key_, merkle_key_, identity_.size_bytes(),
                    context_->options.max_range);
}

bool ObjectFetcher::StartTree(const FetchStep& step) {
  if (tree_piece_) return false;
  const auto index = PickOrigin(step.without);
  if (!index) return false;
  tree_piece_ = std::make_unique<TreePiece>(this, *index, origins_.at(*index), merkle_key_,
                                            verified_->TakeChunk(step.block));
  // Any version of it: what it says is checked.
  tree_piece_->Start({verified_->tree()->layout().tree_bytes(), Pin{}});
  return true;
}

void ObjectFetcher::StartTreeAhead(uint64_t begin) {
  if (const auto step = verified_->TreeAhead(begin)) (void)StartTree(*step);
}

void ObjectFetcher::OnTreeEnd(std::optional<Failure> failure) {
  const std::unique_ptr<TreePiece> ended = std::move(tree_piece_);
  const size_t index = ended->index();
  if (failure) failure = ended->Explain(std::move(*failure), merkle_key_);
  const bool is_right = verified_->TakeTree(index, ended->range().begin, ended->bytes());
  if (failure) return OnOriginFails(index, *failure);
  if (is_right) {
    NoteServed(index);
  } else {
    origins_.Demote(index);
  }
}

// ---- Pieces

bool ObjectFetcher::IsVerifiable(MsgId read, ByteRange range, OriginMask* without) {
  const FetchStep step = verified_->ForRead(range, OutMask());
  *without = step.without;
  if (step.kind == FetchStep::Kind::kTree) (void)StartTree(step);
  if (step.kind == FetchStep::Kind::kLost) {
    FailRead(read, {Failure::Kind::kRefused, EIO, verified_->LoseRead(step, OutMask())});
  }
  return step.kind == FetchStep::Kind::kData;
}

void ObjectFetcher::OnWrongBlock(size_t index, ByteRange block) {
  const std::string cause = verified_->OnWrongBlock(index, block);
  for (const MsgId id : queue_.Missing(block)) troubles_.TellNow(id, cause);
  queue_.Return(block);
}

OriginMask ObjectFetcher::OutMask() const { return origins_.OutMask(NextCame()); }

void ObjectFetcher::Lose(const FetchStep& step) {
  const ByteRange range = queue_.Take(step.end - queue_.NextBegin(), 1);
  lost_why_ = verified_->Lose(step, range, OutMask());
  queue_.Lose(range);
  FailHopeless();
}

void ObjectFetcher::FailHopeless() {
  for (const MsgId id : queue_.Hopeless()) FailRead(id, {Failure::Kind::kRefused, EIO, lost_why_});
}

}  // namespace fetcher
