// ServiceTotals: how a service has ended, and how long it was away each time.
//
// Model    an end counts by its reason; a pause is from a death to the moment at which the next
//          process serves.
// Threads  one thread only.
// Cost     no memory but its own.
// Crash    a copy of the supervisor has what its supervisor had.  A new supervisor goes on with what
//          the status file of the last one says.
// See      docs/metrics.md.

#ifndef HOST_SUPERVISOR_SERVICE_TOTALS_H_
#define HOST_SUPERVISOR_SERVICE_TOTALS_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "cachecore/base/clock.h"
#include "cachecore/totals/totals.h"

namespace host {

enum class EndReason { kSignal, kExit, kEnded, kHung, kNotStarted, kUnknown };

// By EndReason.
inline constexpr std::array<const char*, 6> kEndReasonNames = {"signal", "exit",        "ended",
                                                               "hung",   "not_started", "unknown"};

struct ServiceTotals {
  std::array<uint64_t, kEndReasonNames.size()> ends{};
  std::array<uint64_t, cachecore::TimeTotals::kSeconds.size() + 1> pauses{};  // By bucket.
  uint64_t pauses_us = 0;

  void NoteEnd(EndReason reason) { ++ends[static_cast<size_t>(reason)]; }
  void NotePause(cachecore::Duration took) {
    ++pauses[cachecore::TimeTotals::BucketOf(took)];
    pauses_us += static_cast<uint64_t>(
        std::chrono::duration_cast<std::chrono::microseconds>(took).count());
  }
};

}  // namespace host

#endif  // HOST_SUPERVISOR_SERVICE_TOTALS_H_
