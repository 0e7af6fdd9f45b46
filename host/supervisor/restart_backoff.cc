#include "host/supervisor/restart_backoff.h"

#include <algorithm>
#include <utility>

namespace host {

using cachecore::Duration;

Duration RestartBackoff::DelayAfter(Duration lived) {
  if (lived >= policy_.reset_after) next_ = policy_.backoff_min;
  if (lived >= policy_.at_once_after) {
    // Deaths that come singly must not add up to the delay of a crash loop.
    next_ = std::max<Duration>(next_ / 2, policy_.backoff_min);
    return Duration::zero();
  }
  return std::exchange(next_, std::min<Duration>(next_ * 2, policy_.backoff_max));
}

}  // namespace host
