#include "fetcher/engine/object_fetcher.h"

#include <glog/logging.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "fetcher/engine/object_piece.h"
#include "fetcher/transfer/data_file.h"

namespace fetcher {

using Kind = Failure::Kind;

namespace {

ReadTroubles::Tell TellBy(const FetchContext& context) {
  return
      [client = context.client](MsgId id, const std::string& cause) { client->Cause(id, cause); };
}

std::unique_ptr<ReadTroubles> MakeTroubles(const FetchContext& context, Duration budget) {
  return std::make_unique<ReadTroubles>(budget, context.options.tell_again, TellBy(context));
}

}  // namespace

ObjectFetcher::ObjectFetcher(FetchContext* context, OpenRequest open, Source source, uint64_t order)
    : context_(context),
      id_(open.object_id),
      open_id_(open.msg_id),
      open_order_(order),
      volume_(std::move(open.volume_key)),
      key_(std::move(open.cookie_key)),
      source_stamp_(std::move(source.stamp)),
      data_fd_(std::move(open.data_fd)),
      origins_(std::move(source.origins),
               {context->options.retry_first, context->options.retry_cap,
                context->options.confirm_change},
               context->random),
      last_came_(order),
      merkle_key_(source.merkle.empty() ? key_ + ".merkle" : source.merkle),
      identity_(source.verity),
      opening_({this, &origins_, &identity_, context->client, context->trees, context->clock},
               {id_, open_order_, key_, merkle_key_}),
      open_troubles_(MakeTroubles(*context, context->options.open_retry_budget)),
      troubles_(context->options.retry_budget, context->options.tell_again, TellBy(*context)),
      room_(&context->without_room),
      through_(&context->through) {
  if (source.verity && !context->client->TakesVerity()) {
    FailOpen({Kind::kLocal, EPROTONOSUPPORT,
              "this holdfastd does not know digests, so nothing may be mounted with one",
              Duration::zero()});
    return;
  }
  if (open.attr.empty()) return;
  auto attr = DecodeAttr(open.attr);
  if (!attr.ok()) {
    LOG(WARNING) << "object " << key_ << ": " << attr.status().message() << "; asking its origins";
    return;
  }
  if (open.is_check) {
    identity_.TakeUnchecked(std::move(*attr));
    // Long enough for an origin to report a change three times.
    open_troubles_ = MakeTroubles(*context, std::max(context->options.open_retry_budget,
                                                     3 * context->options.confirm_change));
    return;
  }
  identity_.Take(std::move(*attr));
  Opened();
}

ObjectFetcher::~ObjectFetcher() { context_->trees->Forget(open_order_); }

void ObjectFetcher::Opened() {
  open_ = true;
  opening_.Opened();
  if (const auto& digest = identity_.verity()) {
    if (!verified_) {
      Verify(ObjectTree(*digest, identity_.size_bytes(), context_->trees, open_order_));
    }
    context_->client->SetVerity(id_, *digest);
  }
  context_->client->Copen(open_id_, identity_.size_bytes());
}

void ObjectFetcher::AddRead(MsgId id, ByteRange range, uint64_t order, uint64_t came) {
  if (!open_ || range.end > identity_.size_bytes()) {
    context_->client->Fail(id_, id, EINVAL, "a READ that is not inside an open object");
    return;
  }
  queue_.Add(id, range, order, came);
  last_came_ = came;
  if (room_.is_lacking()) TellNoRoom(id);
  // If every origin is waiting out a failure, so is this READ, and its reader should learn why.
  if (!origins_.AreAllWaiting(context_->clock.Now())) return;
  MeetTrouble(&troubles_, id, origins_.WorstFailure());
}

void ObjectFetcher::ForgetRead(MsgId id) {
  queue_.Remove(id);
  troubles_.Forget(id);
  // A transfer in progress is released at its end.
  if (through_.Is(id) && pieces_.empty()) through_.Reset();
}

void ObjectFetcher::OnTimer() {
  if (failed_) return;
  FailExhausted();
  const Duration now = context_->clock.Now();
  // Also with nothing to fetch: the objects share the count by which the spell is logged.
  const bool is_unused = queue_.empty() && pieces_.empty();
  if (room_.is_lacking() && is_unused && room_.look_at() <= now && FindsRoom()) room_.Found();
  // There is one timer an object, for the soonest time: every later one is set again.
  const auto wake = [&](Duration at) {
    if (at > now) context_->wake_at(id_, at);
  };
  for (size_t i = 0; i < origins_.size(); ++i) wake(origins_.RetryAt(i));
  if (room_.is_lacking()) wake(room_.look_at());
  wake(through_.paused_until());
  const auto keep = [this](const ReadTroubles& troubles) {
    for (const Duration deadline : troubles.Deadlines()) context_->wake_at(id_, deadline);
  };
  if (!open_) keep(*open_troubles_);
  keep(troubles_);
}

std::optional<uint64_t> ObjectFetcher::NextOrder() const {
  if (failed_) return std::nullopt;
  if (through_.is_active() && !pieces_.empty())
    return std::nullopt;  // What follows depends on its end.
  if (room_.is_lacking() && context_->clock.Now() < room_.look_at() && !MayGoThrough())
    return std::nullopt;
  if (open_) return queue_.NextOrder();
  if (opening_.IsBusy()) return std::nullopt;
  return open_order_;
}

uint64_t ObjectFetcher::NextCame() const {
  if (!NextOrder()) return last_came_;
  return open_ ? queue_.NextCame() : open_order_;
}

std::optional<size_t> ObjectFetcher::PickOrigin(OriginMask without) const {
  return origins_.Pick(without, NextCame(), context_->clock.Now());
}

bool ObjectFetcher::StartOne(bool alone) {
  FailRefused();  // What was in flight when the last origin refused, and has come back.
  if (!NextOrder()) return false;
  if (room_.is_lacking() && (context_->clock.Now() < room_.look_at() || !FindsRoom())) {
    return MayGoThrough() && StartThrough();
  }
  const FetchStep step = open_ ? NextStep() : FetchStep{};
  if (step.kind == FetchStep::Kind::kTree) return StartTree(step);
  if (step.kind == FetchStep::Kind::kLost) {
    Lose(step);
    return true;
  }
  const std::optional<size_t> index = PickOrigin(step.without);
  if (!index) return false;
  if (!open_ || !IsPinned(*index)) {
    opening_.Start(*index);
    return true;
  }
  const Origin& origin = *origins_.at(*index);
  // A sequential reader need not wait for the next part of the tree if it is requested early.
  // After the data it would find no free connection while much data is wanted.
  if (verified_ && (origin.idle() > 1 || !pieces_.empty())) StartTreeAhead(step.end);
  if (origin.idle() == 0) return false;
  StartPiece(*index, TakePiece(origin, step.end - queue_.NextBegin(), alone), -1);
  return true;
}

FetchStep ObjectFetcher::NextStep() const {
  const uint64_t begin = queue_.NextBegin();
  if (verified_) return verified_->Next(begin, OutMask());
  return {FetchStep::Kind::kData, begin + context_->options.max_range};
}

// ---- Origins

void ObjectFetcher::NoteServed(size_t index) {
  origins_.Served(index);
  context_->spells->Served(NameOf(index), context_->clock.Now());
}

void ObjectFetcher::OnOriginServes(size_t index) {
  NoteServed(index);
  if (!open_) Opened();
}

void ObjectFetcher::OnVerified(size_t index, ObjectTree tree) {
  NoteServed(index);
  Verify(std::move(tree));
  Opened();
}

// ---- Pieces

ByteRange ObjectFetcher::TakePiece(const Origin& origin, uint64_t max_bytes, bool alone) {
  if (!alone) return queue_.Take(max_bytes, 1);
  return queue_.Take(origin.limit.LargestRange(max_bytes), origin.limit.Sharers());
}

void ObjectFetcher::StartPiece(size_t index, ByteRange range, int through) {
  const std::shared_ptr<Origin>& origin = origins_.at(index);
  const bool is_through = through >= 0;
  const Piece::Target target{is_through ? through : data_fd_.get(), is_through};
  if (verified_) {
    const ByteRange wide = verified_->Widen(range);
    pieces_.push_back(std::make_unique<VerifiedPiece>(this, context_->clock, index, origin, wide,
                                                      target, verified_->tree(),
                                                      verified_->PathsOf(wide)));
  } else {
    pieces_.push_back(std::make_unique<Piece>(this, context_->clock, index, origin, range, target));
  }
  pieces_.back()->Start(key_, identity_.VersionAt(NameOf(index)), origins_.IsDoubted(index));
}

void ObjectFetcher::OnArrived(ByteRange range) {
  if (!troubles_.empty()) {  // Progress: their budgets begin again at the next failure.
    for (const MsgId id : queue_.Missing(range)) troubles_.Forget(id);
  }
  if (room_.is_lacking()) room_.Found();
  context_->client->Filled(id_, range);
  for (const MsgId id : queue_.Arrived(range)) {
    troubles_.Forget(id);
    context_->client->Complete(id_, id);
  }
  FailHopeless();
  context_->declared_bytes += range.size();
  if (context_->declared_bytes < FetchContext::kFlushBytes) return;
  context_->declared_bytes = 0;
  context_->client->Flush().IgnoreError("the loop flushes again and acts on an error then");
}

void ObjectFetcher::OnPieceEnd(Piece* piece, std::optional<Failure> failure) {
  const auto place = std::find_if(pieces_.begin(), pieces_.end(),
                                  [piece](const auto& other) { return other.get() == piece; });
  CHECK(place != pieces_.end());
  const std::unique_ptr<Piece> ended = std::move(*place);
  pieces_.erase(place);
  if (ended->has_wrong()) {
    origins_.Demote(ended->index());
    context_->tally->Retry("wrong_bytes");
  } else if (!failure || ended->has_progress()) {
    NoteServed(ended->index());
  }
  if (ended->is_through()) return OnThroughEnd(*ended, std::move(failure));
  if (!failure) return;
  if (!ended->rest().empty()) queue_.Return(ended->rest());
  if (failure->kind == Kind::kLocal && TakesNoWrites(failure->error)) {
    return AwaitRoom(*failure, ended->rest().begin);
  }
  if (failure->kind == Kind::kLocal) {
    for (const MsgId id : queue_.Waiting()) FailRead(id, *failure);
    return;
  }
  origins_.at(ended->index())->limit.Failed(context_->clock.Now());
  OnOriginFails(ended->index(), *failure);
}

// ---- Failures

void ObjectFetcher::OnOriginFails(size_t index, Failure failure) {
  if (failure.kind == Kind::kChanged) {
    failure = origins_.JudgeChange(index, std::move(failure), identity_.IsNamedByDigest(),
                                   context_->clock.Now());
  }
  VLOG(1) << "object " << key_ << ": " << failure.cause;
  context_->spells->Failed(NameOf(index), failure.cause, context_->clock.Now());
  origins_.Failed(index, failure, context_->clock.Now());
  if (failure.kind == Kind::kRetry) {
    context_->tally->Retry(failure.reason);
    context_->wake_at(id_, origins_.RetryAt(index));
  } else {
    if (open_ && context_->source_changed(volume_, source_stamp_)) return CloseInstance();
    origins_.PutOut(index, last_came_);
  }
  FailRefused();
  if (failed_) return;
  if (!open_) {
    MeetTrouble(open_troubles_.get(), open_id_, failure);
  } else {
    for (const MsgId id : queue_.Waiting()) MeetTrouble(&troubles_, id, failure);
  }
  FailExhausted();
}

// A later READ asks them again: their operator may have repaired them.
void ObjectFetcher::FailRefused() {
  const std::optional<uint64_t> refused = origins_.RefusedThrough();
  if (!refused || failed_) return;
  if (!open_) return FailOpen(origins_.WorstFailure());
  const std::vector<MsgId> waiting = queue_.WaitingThrough(*refused);
  if (waiting.empty()) return;
  const Failure worst = origins_.WorstFailure();
  for (const MsgId id : waiting) FailRead(id, worst);
}

void ObjectFetcher::CloseInstance() {
  failed_ = true;
  context_->client->Close(id_);
}

void ObjectFetcher::MeetTrouble(ReadTroubles* troubles, MsgId id, const Failure& failure) {
  const auto deadline = troubles->Met(id, failure.cause, context_->clock.Now());
  if (deadline) context_->wake_at(id_, *deadline);
}

void ObjectFetcher::FailRead(MsgId id, const Failure& failure) {
  int error = EIO;
  if (failure.kind == Kind::kChanged) error = ESTALE;
  if (failure.kind == Kind::kLocal) error = failure.error;
  ForgetRead(id);
  context_->client->Fail(id_, id, error, failure.cause);
}

void ObjectFetcher::FailOpen(const Failure& failure) {
  failed_ = true;
  context_->client->CopenError(open_id_, failure.error, failure.cause);
}

void ObjectFetcher::FailExhausted() {
  const Duration now = context_->clock.Now();
  if (!open_) {
    if (failed_ || open_troubles_->Exhausted(now).empty()) return;
    Failure worst = origins_.WorstFailure();
    // Not a refusal: a caller that still has time may try again.
    if (worst.kind == Kind::kRetry && worst.error == EIO) worst.error = ETIMEDOUT;
    FailOpen(worst);
    return;
  }
  for (const auto& [id, cause] : troubles_.Exhausted(now)) FailRead(id, {Kind::kRetry, EIO, cause});
}

}  // namespace fetcher
