#include "fetcher/object_fetcher.h"

#include <glog/logging.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <utility>

#include "fetcher/object_piece.h"

namespace fetcher {
namespace {

using Kind = Failure::Kind;

}  // namespace

ObjectFetcher::ObjectFetcher(FetchContext* context, OpenRequest open, Source source, uint64_t order)
    : context_(context),
      id_(open.object_id),
      open_id_(open.msg_id),
      open_order_(order),
      key_(std::move(open.cookie_key)),
      data_fd_(std::move(open.data_fd)),
      open_trouble_{RetryBudget(context->options.open_retry_budget), ""} {
  for (std::shared_ptr<Origin>& origin : source.origins) {
    const FetchOptions& options = context->options;
    OriginState state(RetryPolicy(options.retry_first, options.retry_cap, context->random));
    state.origin = std::move(origin);
    origins_.push_back(std::move(state));
  }
  verity_ = source.verity;
  merkle_key_ = source.merkle.empty() ? key_ + ".merkle" : source.merkle;
  if (verity_ && !context->client->TakesVerity()) {
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
  attr_ = std::move(*attr);
  Opened();
}

ObjectFetcher::~ObjectFetcher() { context_->trees->Forget(open_order_); }

void ObjectFetcher::Opened() {
  open_ = true;
  if (verity_) {
    if (!tree_) tree_.emplace(*verity_, attr_.size_bytes, context_->trees, open_order_);
    context_->client->SetVerity(id_, *verity_);
  }
  context_->client->Copen(open_id_, attr_.size_bytes);
}

void ObjectFetcher::AddRead(MsgId id, ByteRange range, uint64_t order) {
  if (!open_ || range.end > attr_.size_bytes) {
    context_->client->Fail(id_, id, EINVAL, "a READ that is not inside an open object");
    return;
  }
  queue_.Add(id, range, order);
  // If every origin is waiting out a failure, so is this READ, and its reader should learn why.
  const auto failing = [](const OriginState& state) { return state.failure.has_value(); };
  if (!std::all_of(origins_.begin(), origins_.end(), failing)) return;
  TellTrouble(id, &TroubleOf(id), WorstFailure());
}

void ObjectFetcher::ForgetRead(MsgId id) {
  queue_.Remove(id);
  troubles_.erase(id);
}

void ObjectFetcher::OnTimer() {
  if (!failed_) FailExhausted();
}

std::optional<uint64_t> ObjectFetcher::NextOrder() const {
  if (failed_) return std::nullopt;
  if (open_) return queue_.NextOrder();
  const auto probing = [](const OriginState& state) { return state.probe != nullptr; };
  if (tree_piece_ || std::any_of(origins_.begin(), origins_.end(), probing)) return std::nullopt;
  return open_order_;
}

std::optional<size_t> ObjectFetcher::PickOrigin(OriginMask without) const {
  const Duration now = context_->clock.Now();
  std::optional<size_t> best;
  for (size_t i = 0; i < origins_.size(); ++i) {
    const OriginState& state = origins_[i];
    if (state.out || state.retry_at > now || (without >> i & 1) != 0) continue;
    if (!best || state.policy.failures() < origins_[*best].policy.failures()) best = i;
  }
  // The best one being busy is no reason to load another: those are for when it fails.
  if (best && (origins_[*best].probe || origins_[*best].origin->idle() == 0)) return std::nullopt;
  return best;
}

bool ObjectFetcher::StartOne(bool alone) {
  if (open_ && tree_) return StartVerified(alone);
  const std::optional<size_t> index = PickOrigin(0);
  if (!index) return false;
  if (open_ && IsPinned(*index)) {
    StartPiece(*index, alone);
  } else {
    StartProbe(*index);
  }
  return true;
}

// ---- Origins
// -------------------------------------------------------------------------------------

bool ObjectFetcher::IsPinned(size_t index) const {
  return attr_.pins.count(origins_[index].origin->name) > 0;
}

void ObjectFetcher::StartProbe(size_t index) {
  OriginState& state = origins_[index];
  state.slot = std::make_unique<TransferSlot>(state.origin);
  state.probe = state.origin->backend->Probe(
      key_, [this, index](ProbeResult result) { OnProbed(index, std::move(result)); });
}

void ObjectFetcher::OnProbed(size_t index, ProbeResult result) {
  OriginState& state = origins_[index];
  const std::unique_ptr<Transfer> ended = std::move(state.probe);
  state.slot.reset();
  std::optional<Failure> failure;
  if (auto* failed = std::get_if<Failure>(&result)) {
    failure = std::move(*failed);
  } else {
    const auto& version = std::get<ObjectVersion>(result);
    if (verity_ && !open_) return StartRootCheck(index, version);
    failure = PinOrigin(index, version);
  }
  if (failure) return OnFailure(index, *failure);
  state.policy.Succeeded();
  state.failure.reset();
  if (!open_) Opened();
}

std::optional<Failure> ObjectFetcher::PinOrigin(size_t index, const ObjectVersion& version) {
  const OriginState& state = origins_[index];
  const std::string url = state.origin->backend->Describe(key_);
  if (open_ && version.size_bytes != attr_.size_bytes) {
    return Failure{Kind::kChanged, ESTALE,
                   url + ": changed since it was mounted (size was " +
                       std::to_string(attr_.size_bytes) + ", is " +
                       std::to_string(version.size_bytes) + ")"};
  }
  ObjectAttr with_pin = attr_;
  with_pin.size_bytes = version.size_bytes;
  with_pin.pins[state.origin->name] = version.pin;
  auto text = EncodeAttr(with_pin);
  if (!text.ok()) {
    return Failure{Kind::kRefused, EOPNOTSUPP, url + ": " + text.status().message()};
  }
  attr_ = std::move(with_pin);
  context_->client->SetAttr(id_, *text);
  return std::nullopt;
}

// ---- Pieces
// --------------------------------------------------------------------------------------

void ObjectFetcher::StartPiece(size_t index, bool alone) {
  OriginState& state = origins_[index];
  const ByteRange range =
      queue_.Take(context_->options.max_range, alone ? state.origin->idle() : 1);
  pieces_.push_back(std::make_unique<Piece>(this, index, range));
  const ObjectVersion version{attr_.size_bytes, attr_.pins.at(state.origin->name)};
  pieces_.back()->Start(state.origin->backend.get(), {key_, range, version, data_fd_.get()});
}

void ObjectFetcher::Declare(ByteRange range) {
  if (!troubles_.empty()) {  // Progress: their budgets begin anew at the next failure.
    for (const MsgId id : queue_.Missing(range)) troubles_.erase(id);
  }
  context_->client->Filled(id_, range);
  for (const MsgId id : queue_.Arrived(range)) {
    troubles_.erase(id);
    context_->client->Complete(id_, id);
  }
  FailHopeless();
  context_->declared_bytes += range.size();
  if (context_->declared_bytes < FetchContext::kFlushBytes) return;
  context_->declared_bytes = 0;
  // The loop flushes again and acts on an error then.
  static_cast<void>(context_->client->Flush().ok());
}

void ObjectFetcher::OnPieceEnd(Piece* piece, std::optional<Failure> failure) {
  const auto place = std::find_if(pieces_.begin(), pieces_.end(),
                                  [piece](const auto& other) { return other.get() == piece; });
  CHECK(place != pieces_.end());
  const std::unique_ptr<Piece> ended = std::move(*place);
  pieces_.erase(place);
  OriginState& state = origins_[ended->index()];
  if (ended->has_wrong()) {
    (void)state.policy.NextDelay();  // Others first, from now on.
  } else if (!failure || ended->has_progress()) {
    state.policy.Succeeded();
    state.failure.reset();
  }
  if (!failure) return;
  if (!ended->rest().empty()) queue_.Return(ended->rest());
  if (failure->kind == Kind::kLocal) {
    for (const MsgId id : queue_.Waiting()) FailRead(id, *failure);
    return;
  }
  OnFailure(ended->index(), *failure);
}

// ---- Failures
// ------------------------------------------------------------------------------------

void ObjectFetcher::OnFailure(size_t index, const Failure& failure) {
  OriginState& state = origins_[index];
  VLOG(1) << "object " << key_ << ": " << failure.cause;
  state.failure = failure;
  if (failure.kind == Kind::kRetry) {
    state.retry_at = context_->clock.Now() + state.policy.NextDelay(failure.retry_after);
    context_->wake_at(id_, state.retry_at);
  } else {
    state.out = true;
  }
  const auto out = [](const OriginState& other) { return other.out; };
  if (std::all_of(origins_.begin(), origins_.end(), out)) return GiveUp();
  if (!open_) {
    TellTrouble(open_id_, &open_trouble_, failure);
  } else {
    for (const MsgId id : queue_.Waiting()) TellTrouble(id, &TroubleOf(id), failure);
  }
  FailExhausted();
}

void ObjectFetcher::GiveUp() {
  const Failure worst = WorstFailure();
  if (!open_) return FailOpen(worst);
  for (const MsgId id : queue_.Waiting()) FailRead(id, worst);
  // A later READ asks them again: whoever looks after them may have put things right.
  for (OriginState& state : origins_) {
    state.out = false;
    state.failure.reset();
  }
}

ObjectFetcher::Trouble& ObjectFetcher::TroubleOf(MsgId id) {
  const Trouble none{RetryBudget(context_->options.retry_budget), ""};
  return troubles_.try_emplace(id, none).first->second;
}

void ObjectFetcher::TellTrouble(MsgId id, Trouble* trouble, const Failure& failure) {
  trouble->budget.Start(context_->clock.Now());
  if (const auto deadline = trouble->budget.Deadline()) context_->wake_at(id_, *deadline);
  if (trouble->cause == failure.cause) return;
  trouble->cause = failure.cause;
  context_->client->Cause(id, failure.cause);
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
    if (!failed_ && open_trouble_.budget.Exhausted(now)) FailOpen(WorstFailure());
    return;
  }
  std::vector<std::pair<MsgId, std::string>> exhausted;
  for (const auto& [id, trouble] : troubles_) {
    if (trouble.budget.Exhausted(now)) exhausted.emplace_back(id, trouble.cause);
  }
  for (const auto& [id, cause] : exhausted) FailRead(id, {Kind::kRetry, EIO, cause});
}

const Failure& ObjectFetcher::WorstFailure() const {
  // What may pass says least about the object, so it comes first; then a change, then refusals.
  for (const Kind kind : {Kind::kRetry, Kind::kChanged, Kind::kRefused}) {
    for (const OriginState& state : origins_) {
      if (state.failure && state.failure->kind == kind) return *state.failure;
    }
  }
  LOG(FATAL) << "no origin has failed";
}

}  // namespace fetcher
