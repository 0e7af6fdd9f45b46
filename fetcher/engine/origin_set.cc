#include "fetcher/engine/origin_set.h"

#include <glog/logging.h>

#include <algorithm>
#include <limits>
#include <utility>

namespace fetcher {

using Kind = Failure::Kind;

OriginSet::OriginSet(std::vector<std::shared_ptr<Origin>> origins, const Options& options,
                     std::mt19937* random)
    : confirm_change_(options.confirm_change) {
  for (std::shared_ptr<Origin>& origin : origins) {
    states_.push_back(
        {std::move(origin), RetryPolicy(options.retry_first, options.retry_cap, random)});
  }
}

bool OriginSet::HasName(const std::string& name) const {
  return std::any_of(states_.begin(), states_.end(),
                     [&name](const State& state) { return state.origin->name == name; });
}

OriginMask OriginSet::all() const {
  return static_cast<OriginMask>((uint64_t{1} << states_.size()) - 1);
}

OriginMask OriginSet::OutMask(uint64_t came) const {
  OriginMask mask = 0;
  for (size_t i = 0; i < states_.size(); ++i) {
    const std::optional<uint64_t>& out = states_[i].out_through;
    if (out && came <= *out) mask |= OriginMask{1} << i;
  }
  return mask;
}

std::string OriginSet::Describe(OriginMask mask, const std::string& key) const {
  std::string text;
  for (size_t i = 0; i < states_.size(); ++i) {
    if ((mask >> i & 1) == 0) continue;
    text += (text.empty() ? "" : ", ") + states_[i].origin->backend->Describe(key);
  }
  return text;
}

std::optional<size_t> OriginSet::Pick(OriginMask without, uint64_t came, Duration now) const {
  std::optional<size_t> best;
  for (size_t i = 0; i < states_.size(); ++i) {
    const State& state = states_[i];
    if (state.out_through && came <= *state.out_through) continue;
    if (state.retry_at > now || (without >> i & 1) != 0) continue;
    if (!best || state.policy.failures() < states_[*best].policy.failures()) best = i;
  }
  // While the best one is busy no other is asked: the others are used when it fails.
  if (best && (states_[*best].is_probing || states_[*best].origin->idle() == 0)) {
    return std::nullopt;
  }
  return best;
}

bool OriginSet::IsAnyProbing() const {
  return std::any_of(states_.begin(), states_.end(),
                     [](const State& state) { return state.is_probing; });
}

void OriginSet::Served(size_t index) {
  State& state = states_[index];
  state.policy.Succeeded();
  state.failure.reset();
  state.doubt.reset();
  state.out_through.reset();
}

// One answer may be a mistake of a proxy, of one node of many, or of a deployment that is going on.
Failure OriginSet::JudgeChange(size_t index, Failure failure, bool is_named_by_digest,
                               Duration now) {
  if (is_named_by_digest) {
    failure.kind = Kind::kRetry;
    failure.reason = "changed";
    failure.cause += "; the object is known by its digest, so this is not it";
    return failure;
  }
  std::optional<Doubt>& doubt = states_[index].doubt;
  const Duration apart = confirm_change_ / (Doubt::kEnough - 1);
  if (!doubt || doubt->cause != failure.cause) {
    doubt = Doubt{failure.cause, now, now};
  } else if (now - doubt->last >= apart) {
    doubt->last = now;
    ++doubt->times;
  }
  if (doubt->times >= Doubt::kEnough) return failure;
  failure.kind = Kind::kRetry;
  failure.reason = "changed";
  failure.cause += "; asking again";
  failure.retry_after = apart;
  return failure;
}

// A transfer that was under way when the last failure came counts as part of that one: it may make
// the wait longer (Retry-After), not shorter.
void OriginSet::Failed(size_t index, const Failure& failure, Duration now) {
  State& state = states_[index];
  const Duration wait =
      state.retry_at > now ? failure.retry_after : state.policy.NextDelay(failure.retry_after);
  state.failure = failure;
  if (failure.kind == Kind::kRetry) state.retry_at = std::max(state.retry_at, now + wait);
}

bool OriginSet::AreAllWaiting(Duration now) const {
  return std::all_of(states_.begin(), states_.end(),
                     [now](const State& state) { return state.failure && state.retry_at > now; });
}

std::optional<uint64_t> OriginSet::RefusedThrough() const {
  uint64_t came = std::numeric_limits<uint64_t>::max();
  for (const State& state : states_) {
    if (!state.out_through) return std::nullopt;
    came = std::min(came, *state.out_through);
  }
  return came;
}

const Failure& OriginSet::WorstFailure() const {
  // A failure that may pass proves least about the object, so it comes first; then a change, then
  // refusals.
  for (const Kind kind : {Kind::kRetry, Kind::kChanged, Kind::kRefused}) {
    for (const State& state : states_) {
      if (state.failure && state.failure->kind == kind) return *state.failure;
    }
  }
  LOG(FATAL) << "no origin has failed";
}

}  // namespace fetcher
