// Clock: the time, as one seam that tests can turn by hand.
//
// Units    Now() is monotonic time since an unspecified start; it never goes back.
// Threads  thread-safe.

#ifndef CACHECORE_CLOCK_H_
#define CACHECORE_CLOCK_H_

#include <chrono>

namespace cachecore {

using Duration = std::chrono::nanoseconds;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Duration Now() const = 0;
  static const Clock& Monotonic();
};

}  // namespace cachecore

#endif  // CACHECORE_CLOCK_H_
