// ObjectFetcher's data file when its disk is full: waiting for room, and what is served meanwhile.

#include <glog/logging.h>

#include <cerrno>
#include <utility>

#include "fetcher/engine/object_fetcher.h"
#include "fetcher/engine/object_piece.h"

namespace fetcher {

void ObjectFetcher::AwaitRoom(const Failure& failure, uint64_t begin) {
  const bool goes_through = context_->client->TakesThrough();
  room_.Lacks(failure, begin, goes_through, context_->clock.Now());
  context_->wake_at(id_, room_.look_at());
  // Before the causes, whose answers show then which READs no reader waited for.
  if (goes_through && !queue_.empty()) context_->client->Full(id_);
  for (const MsgId id : queue_.Waiting()) TellNoRoom(id);
}

void ObjectFetcher::TellNoRoom(MsgId id) {
  // Without a budget: no origin is at fault, and the daemon bounds how long a reader waits.
  troubles_.Waits(id, room_.failure().cause, context_->clock.Now());
}

bool ObjectFetcher::FindsRoom() {
  const uint64_t begin = queue_.empty() ? room_.begin() : queue_.NextBegin();
  if (!DataRoom::IsThere(data_fd_.get(), begin, identity_.size_bytes())) {
    AwaitRoom(room_.failure(), begin);
    return false;
  }
  through_.Reset();
  return true;
}

// ---- Through

bool ObjectFetcher::MayGoThrough() const {
  const DeviceClient& client = *context_->client;
  if (!room_.is_lacking() || !open_ || !client.TakesThrough() || !pieces_.empty()) return false;
  return through_.MayContinue(client.throughs(), context_->clock.Now());
}

bool ObjectFetcher::StartThrough() {
  if (through_.is_active() && !queue_.Has(through_.id())) through_.Reset();
  auto [id, range] = queue_.NextRead();
  if (through_.is_active()) {
    id = through_.id();
    range = through_.rest();
  }
  if (range.size() > cachecore::wire::kMaxThroughSize) return false;
  OriginMask without = 0;
  if (verified_ && !IsVerifiable(id, range, &without)) return false;
  const std::optional<size_t> index = PickOrigin(without);
  if (!index) return false;
  if (!IsPinned(*index)) {
    opening_.Start(*index);
    return true;
  }
  if (!through_.is_active()) {
    if (!through_.Begin(id, range)) {
      PauseThrough();
      return false;
    }
    context_->client->Full(id_);  // The daemon forgets it with each `filled`.
  }
  StartPiece(*index, range, through_.file());
  return true;
}

void ObjectFetcher::PauseThrough() {
  PLOG_EVERY_N(WARNING, 100) << "what cannot be kept cannot be served through memory either";
  through_.Pause(context_->clock.Now());
  context_->wake_at(id_, through_.paused_until());
}

void ObjectFetcher::OnThroughEnd(const Piece& ended, std::optional<Failure> failure) {
  if (ended.has_wrong() || (failure && !ended.has_progress()) || !queue_.Has(through_.id())) {
    through_.Reset();  // Without bytes or a reader it would delay others.
  } else {
    through_.Arrived(ended.rest().begin);
  }
  if (failure && failure->kind == Failure::Kind::kLocal) {
    through_.Reset();
    errno = failure->error;
    return PauseThrough();
  }
  if (failure) {
    origins_.at(ended.index())->limit.Failed(context_->clock.Now());
    return OnOriginFails(ended.index(), *failure);
  }
  if (through_.is_active()) SendThrough();
}

void ObjectFetcher::SendThrough() {
  std::optional<ThroughRead::Sealed> ended = through_.Seal();
  if (!ended) return PauseThrough();
  ForgetRead(ended->id);
  context_->client->Through(id_, ended->id, ended->range, std::move(ended->file));
}

// The daemon may still know the READ, which then must not be lost.
void ObjectFetcher::ThroughRefused(MsgId id, ByteRange range, uint64_t order) {
  through_.Pause(context_->clock.Now());
  context_->wake_at(id_, through_.paused_until());
  AddRead(id, range, order, order);
}

}  // namespace fetcher
