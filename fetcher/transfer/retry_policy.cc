#include "fetcher/transfer/retry_policy.h"

#include <glog/logging.h>

#include <algorithm>

namespace fetcher {

RetryPolicy::RetryPolicy(Duration first, Duration cap, std::mt19937* random)
    : first_(first), cap_(cap), random_(random) {
  CHECK(Duration::zero() < first && first <= cap);
}

Duration RetryPolicy::NextDelay(Duration at_least) {
  Duration limit = first_;
  for (int i = 0; i < failures_ && limit < cap_; ++i) limit *= 2;
  ++failures_;
  limit = std::min(limit, cap_);
  std::uniform_int_distribution<Duration::rep> pick(1, limit.count());
  return std::max(Duration(pick(*random_)), at_least);
}

}  // namespace fetcher
