// Points in time as the supervisor counts them: on the monotonic clock, kNever for none.

#ifndef HOST_SUPERVISOR_SUPERVISE_TIME_H_
#define HOST_SUPERVISOR_SUPERVISE_TIME_H_

#include <chrono>
#include <cstdint>

#include "cachecore/base/clock.h"

namespace host {

inline constexpr cachecore::Duration kNever = cachecore::Duration::max();

inline cachecore::Duration MonotonicNow() { return cachecore::Clock::Monotonic().Now(); }

inline cachecore::Duration DeadlineIn(cachecore::Duration time) {
  return time == kNever ? kNever : MonotonicNow() + time;
}

// For people: milliseconds since 1970.
inline int64_t WallMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace host

#endif  // HOST_SUPERVISOR_SUPERVISE_TIME_H_
