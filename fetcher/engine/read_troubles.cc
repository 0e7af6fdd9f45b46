#include "fetcher/engine/read_troubles.h"

namespace fetcher {

using cachecore::MsgId;

ReadTroubles::Trouble& ReadTroubles::Of(MsgId id) {
  return troubles_.try_emplace(id, Trouble{RetryBudget(budget_)}).first->second;
}

std::optional<Duration> ReadTroubles::Met(MsgId id, const std::string& cause, Duration now) {
  Of(id).budget.Start(now);
  Waits(id, cause, now);
  return Of(id).budget.Deadline();
}

void ReadTroubles::Waits(MsgId id, const std::string& cause, Duration now) {
  Trouble& trouble = Of(id);
  if (trouble.cause == cause && now - trouble.told_at < tell_again_) return;
  trouble.cause = cause;
  trouble.told_at = now;
  tell_(id, cause);
}

void ReadTroubles::TellNow(MsgId id, const std::string& cause) {
  Of(id).cause = cause;
  tell_(id, cause);
}

std::vector<std::pair<MsgId, std::string>> ReadTroubles::Exhausted(Duration now) const {
  std::vector<std::pair<MsgId, std::string>> exhausted;
  for (const auto& [id, trouble] : troubles_) {
    if (trouble.budget.Exhausted(now)) exhausted.emplace_back(id, trouble.cause);
  }
  return exhausted;
}

std::vector<Duration> ReadTroubles::Deadlines() const {
  std::vector<Duration> deadlines;
  for (const auto& [id, trouble] : troubles_) {
    if (const auto deadline = trouble.budget.Deadline()) deadlines.push_back(*deadline);
  }
  return deadlines;
}

}  // namespace fetcher
