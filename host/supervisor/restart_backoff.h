// RestartBackoff: how long to wait before the next start of one service.
//
// Threads  one thread only.

#ifndef HOST_SUPERVISOR_RESTART_BACKOFF_H_
#define HOST_SUPERVISOR_RESTART_BACKOFF_H_

#include <chrono>

#include "cachecore/base/clock.h"

namespace host {

struct RestartPolicy {
  // Lived this long: no delay, and half of what had gathered for the next short life.
  std::chrono::milliseconds at_once_after{100};
  std::chrono::milliseconds backoff_min{10};  // The first delay; each one after is twice as long.
  std::chrono::milliseconds backoff_max{5000};
  std::chrono::milliseconds reset_after{
      10000};  // Lived this long: the next delay is the first again.
};

class RestartBackoff {
 public:
  explicit RestartBackoff(const RestartPolicy& policy)
      : policy_(policy), next_(policy.backoff_min) {}
  cachecore::Duration DelayAfter(cachecore::Duration lived);

 private:
  RestartPolicy policy_;
  cachecore::Duration next_;
};

}  // namespace host

#endif  // HOST_SUPERVISOR_RESTART_BACKOFF_H_
