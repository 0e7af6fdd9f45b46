// RetryPolicy: when to try again; RetryBudget: when to stop trying.  Pure: time is passed in.
//
// Model    full jitter: the n-th wait is uniform in (0, min(cap, first * 2^(n-1))], so that many
//          waiters spread out instead of returning together.  A budget runs from the first failure
//          since the last success.
// Threads  thread-compatible.

#ifndef FETCHER_TRANSFER_RETRY_POLICY_H_
#define FETCHER_TRANSFER_RETRY_POLICY_H_

#include <optional>
#include <random>

#include "cachecore/base/clock.h"

namespace fetcher {

using cachecore::Duration;

class RetryPolicy {
 public:
  // REQUIRES: 0 < first <= cap.  `random` outlives this.
  RetryPolicy(Duration first, Duration cap, std::mt19937* random);

  // Counts a failure and says how long to wait, but at least `at_least`.
  Duration NextDelay(Duration at_least = Duration::zero());
  void Succeeded() { failures_ = 0; }
  int failures() const { return failures_; }

 private:
  Duration first_;
  Duration cap_;
  std::mt19937* random_;
  int failures_ = 0;
};

class RetryBudget {
 public:
  // Zero never runs out.
  explicit RetryBudget(Duration budget) : budget_(budget) {}

  // The budget runs from the first call on.
  void Start(Duration now) {
    if (!started_) started_ = now;
  }
  bool Exhausted(Duration now) const {
    const std::optional<Duration> at = Deadline();
    return at && now >= *at;
  }
  // When it runs out; nullopt for never and before Start.
  std::optional<Duration> Deadline() const {
    if (!started_ || budget_ == Duration::zero()) return std::nullopt;
    return *started_ + budget_;
  }

 private:
  Duration budget_;
  std::optional<Duration> started_;
};

}  // namespace fetcher

#endif  // FETCHER_TRANSFER_RETRY_POLICY_H_
