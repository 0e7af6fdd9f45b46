#include "fetcher/object_fetcher.h"

#include <fcntl.h>
#include <glog/logging.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <utility>

#include "fetcher/data_file.h"
#include "fetcher/object_piece.h"

namespace fetcher {
namespace {

using Kind = Failure::Kind;

// How long room for data may go unnoticed, and how much is looked for.
constexpr std::chrono::seconds kRoomInterval(1);
constexpr uint64_t kRoom = 64 << 10;

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
      last_order_(order),
      open_trouble_{RetryBudget(context->options.open_retry_budget), "", Duration::zero()} {
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

ObjectFetcher::~ObjectFetcher() {
  context_->trees->Forget(open_order_);
  if (no_room_) --context_->without_room;
}

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
  last_order_ = order;
  if (no_room_) TellNoRoom(id);
  // If every origin is waiting out a failure, so is this READ, and its reader should learn why.
  const Duration now = context_->clock.Now();
  const auto failing = [now](const OriginState& state) {
    return state.failure && state.retry_at > now;
  };
  if (!std::all_of(origins_.begin(), origins_.end(), failing)) return;
  TellTrouble(id, &TroubleOf(id), WorstFailure());
}

void ObjectFetcher::ForgetRead(MsgId id) {
  queue_.Remove(id);
  troubles_.erase(id);
}

void ObjectFetcher::OnTimer() {
  if (failed_) return;
  FailExhausted();
  // There is one timer an object: what it stood in the way of is asked for again.
  const Duration now = context_->clock.Now();
  for (const OriginState& state : origins_) {
    if (state.retry_at > now) context_->wake_at(id_, state.retry_at);
  }
  const auto keep = [this](const Trouble& trouble) {
    if (const auto deadline = trouble.budget.Deadline()) context_->wake_at(id_, *deadline);
  };
  if (!open_) keep(open_trouble_);
  for (const auto& [id, trouble] : troubles_) keep(trouble);
}

std::optional<uint64_t> ObjectFetcher::NextOrder() const {
  if (failed_) return std::nullopt;
  if (no_room_ && context_->clock.Now() < room_at_) return std::nullopt;
  if (open_) return queue_.NextOrder();
  const auto probing = [](const OriginState& state) { return state.probe != nullptr; };
  if (tree_piece_ || std::any_of(origins_.begin(), origins_.end(), probing)) return std::nullopt;
  return open_order_;
}

std::optional<size_t> ObjectFetcher::PickOrigin(OriginMask without, uint64_t order) const {
  const Duration now = context_->clock.Now();
  std::optional<size_t> best;
  for (size_t i = 0; i < origins_.size(); ++i) {
    const OriginState& state = origins_[i];
    if (state.out_through && order <= *state.out_through) continue;
    if (state.retry_at > now || (without >> i & 1) != 0) continue;
    if (!best || state.policy.failures() < origins_[*best].policy.failures()) best = i;
  }
  // The best one being busy is no reason to load another: those are for when it fails.
  if (best && (origins_[*best].probe || origins_[*best].origin->idle() == 0)) return std::nullopt;
  return best;
}

bool ObjectFetcher::StartOne(bool alone) {
  GiveUp();  // What was in flight when the last origin refused, and has come back.
  const std::optional<uint64_t> order = NextOrder();
  if (!order) return false;
  if (no_room_ && !FindsRoom()) return false;
  if (open_ && tree_) return StartVerified(alone);
  const std::optional<size_t> index = PickOrigin(0, *order);
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
      key_, state.doubt.has_value(),
      [this, index](ProbeResult result) { OnProbed(index, std::move(result)); });
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
  Served(&state);
  if (!open_) Opened();
}

void ObjectFetcher::Served(OriginState* state) {
  state->policy.Succeeded();
  state->failure.reset();
  state->doubt.reset();
  state->out_through.reset();
}

bool ObjectFetcher::IsNamedByDigest() const {
  const auto by_digest = [](const auto& pin) { return pin.second.kind == "digest"; };
  return verity_ || std::any_of(attr_.pins.begin(), attr_.pins.end(), by_digest);
}

ObjectVersion ObjectFetcher::VersionAt(const OriginState& state) const {
  // What is checked block by block may come from any file.
  return {attr_.size_bytes, verity_ ? Pin{} : attr_.pins.at(state.origin->name)};
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
  const auto is_used = [this](const std::string& name) {
    return std::any_of(origins_.begin(), origins_.end(),
                       [&name](const OriginState& other) { return other.origin->name == name; });
  };
  std::erase_if(with_pin.pins, [&](const auto& pin) { return !is_used(pin.first); });
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
      queue_.Take(context_->options.max_range, alone ? state.origin->max_transfers : 1);
  pieces_.push_back(std::make_unique<Piece>(this, index, range));
  pieces_.back()->Start(state.origin->backend.get(), {key_, range, VersionAt(state),
                                                      data_fd_.get(), state.doubt.has_value()});
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
    Served(&state);
  }
  if (!failure) return;
  if (!ended->rest().empty()) queue_.Return(ended->rest());
  if (failure->kind == Kind::kLocal && TakesNoWrites(failure->error)) return AwaitRoom(*failure);
  if (failure->kind == Kind::kLocal) {
    for (const MsgId id : queue_.Waiting()) FailRead(id, *failure);
    return;
  }
  OnFailure(ended->index(), *failure);
}

void ObjectFetcher::AwaitRoom(const Failure& failure) {
  if (!no_room_ && context_->without_room++ == 0) {
    LOG(WARNING) << failure.cause << "; what has to be fetched waits for room";
  }
  no_room_ = failure;
  room_at_ = context_->clock.Now() + kRoomInterval;
  context_->wake_at(id_, room_at_);
  for (const MsgId id : queue_.Waiting()) TellNoRoom(id);
}

void ObjectFetcher::TellNoRoom(MsgId id) {
  // Without a budget: no origin is at fault, and the daemon bounds how long a reader waits.
  Trouble& trouble = TroubleOf(id);
  if (trouble.cause == no_room_->cause) return;
  trouble.cause = no_room_->cause;
  context_->client->Cause(id, no_room_->cause);
}

// Takes the room itself, so that no origin is asked for what could not be kept.
bool ObjectFetcher::FindsRoom() {
  const uint64_t begin = open_ ? queue_.NextBegin() : 0;
  const uint64_t size = std::min(kRoom, attr_.size_bytes - std::min(begin, attr_.size_bytes));
  if (size > 0 && fallocate(data_fd_.get(), FALLOC_FL_KEEP_SIZE, static_cast<off_t>(begin),
                            static_cast<off_t>(size)) != 0 &&
      TakesNoWrites(errno)) {
    AwaitRoom(*no_room_);
    return false;
  }
  no_room_.reset();
  if (--context_->without_room == 0) LOG(INFO) << "there is room again";
  return true;
}

// ---- Failures
// ------------------------------------------------------------------------------------

void ObjectFetcher::OnFailure(size_t index, Failure failure) {
  OriginState& state = origins_[index];
  if (failure.kind == Kind::kChanged) failure = JudgeChange(&state, std::move(failure));
  VLOG(1) << "object " << key_ << ": " << failure.cause;
  // A transfer that was under way when the last failure came counts as part of that one: it may make
  // the wait longer (Retry-After), not shorter.
  const Duration now = context_->clock.Now();
  const Duration wait =
      state.retry_at > now ? failure.retry_after : state.policy.NextDelay(failure.retry_after);
  state.failure = failure;
  if (failure.kind == Kind::kRetry) {
    state.retry_at = std::max(state.retry_at, now + wait);
    context_->wake_at(id_, state.retry_at);
  } else {
    if (open_ && context_->source_changed(volume_, source_stamp_)) return Reopen();
    state.out_through = last_order_;
  }
  GiveUp();
  if (failed_) return;
  if (!open_) {
    TellTrouble(open_id_, &open_trouble_, failure);
  } else {
    for (const MsgId id : queue_.Waiting()) TellTrouble(id, &TroubleOf(id), failure);
  }
  FailExhausted();
}

// One answer may be a mistake of a proxy, of one node of many, or of a deployment that is going on.
Failure ObjectFetcher::JudgeChange(OriginState* state, Failure failure) {
  if (IsNamedByDigest()) {
    failure.kind = Kind::kRetry;
    failure.cause += "; the object is known by its digest, so this is not it";
    return failure;
  }
  const Duration now = context_->clock.Now();
  const Duration apart = context_->options.confirm_change / (Doubt::kEnough - 1);
  if (!state->doubt || state->doubt->cause != failure.cause) {
    state->doubt = Doubt{failure.cause, now, now};
  } else if (now - state->doubt->last >= apart) {
    state->doubt->last = now;
    ++state->doubt->times;
  }
  if (state->doubt->times >= Doubt::kEnough) return failure;
  failure.kind = Kind::kRetry;
  failure.cause += "; asking again";
  failure.retry_after = apart;
  return failure;
}

std::optional<uint64_t> ObjectFetcher::RefusedThrough() const {
  uint64_t order = std::numeric_limits<uint64_t>::max();
  for (const OriginState& state : origins_) {
    if (!state.out_through) return std::nullopt;
    order = std::min(order, *state.out_through);
  }
  return order;
}

// A later READ asks them again: their operator may have mended them.
void ObjectFetcher::GiveUp() {
  const std::optional<uint64_t> refused = RefusedThrough();
  if (!refused || failed_) return;
  if (!open_) return FailOpen(WorstFailure());
  const std::vector<MsgId> waiting = queue_.WaitingThrough(*refused);
  if (waiting.empty()) return;
  const Failure worst = WorstFailure();
  for (const MsgId id : waiting) FailRead(id, worst);
}

void ObjectFetcher::Reopen() {
  failed_ = true;
  context_->client->Close(id_);
}

ObjectFetcher::Trouble& ObjectFetcher::TroubleOf(MsgId id) {
  const Trouble none{RetryBudget(context_->options.retry_budget), "", Duration::zero()};
  return troubles_.try_emplace(id, none).first->second;
}

void ObjectFetcher::TellTrouble(MsgId id, Trouble* trouble, const Failure& failure) {
  const Duration now = context_->clock.Now();
  trouble->budget.Start(now);
  if (const auto deadline = trouble->budget.Deadline()) context_->wake_at(id_, *deadline);
  if (trouble->cause == failure.cause && now - trouble->told_at < context_->options.tell_again) return;
  trouble->cause = failure.cause;
  trouble->told_at = now;
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
    if (failed_ || !open_trouble_.budget.Exhausted(now)) return;
    Failure worst = WorstFailure();
    // Not a refusal: who still has time may ask again.
    if (worst.kind == Kind::kRetry && worst.error == EIO) worst.error = ETIMEDOUT;
    FailOpen(worst);
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
