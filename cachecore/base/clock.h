// Clock: the time, as one seam that tests can turn by hand.
//
// Units    Now() is monotonic time since an unspecified start; it never goes back.
// Threads  thread-safe.

#ifndef CACHECORE_BASE_CLOCK_H_
#define CACHECORE_BASE_CLOCK_H_

#include <chrono>
#include <cstdint>

namespace cachecore {

using Duration = std::chrono::nanoseconds;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Duration Now() const = 0;
  static const Clock& Monotonic();
};

// Since 1970, as the machine has it now.
uint64_t WallSeconds();

}  // namespace cachecore

#endif  // CACHECORE_BASE_CLOCK_H_
