// Fault points: named steps at which a test can make a process end, wait, or fail.
//
// Model    each step that changes what outlives the process, or what others see, passes a point of
//          fault_points.def.  A program started with --fault-file=PATH reads "NAME N ACTION" from
//          PATH, removes the file, and does ACTION when the point is passed for the N-th time:
//          `exit` ends the process at once, as SIGKILL would; `block` waits for ever; `error` makes
//          the step fail with EIO, where it can.  The file is removed by then, so the next process
//          goes on.
// Errors   Arm: EINVAL for a file that says none of that, naming it.
// Threads  thread-safe; Arm comes before other threads.
// Cost     one branch on a flag that is never written while it is off.

#ifndef CACHECORE_BASE_FAULT_POINT_H_
#define CACHECORE_BASE_FAULT_POINT_H_

#include <atomic>
#include <ostream>
#include <string>

#include "cachecore/base/status.h"

namespace cachecore {

enum class Fault {
#define FAULT(enumerator, name, program) enumerator,
#include "cachecore/base/fault_points.def"
#undef FAULT
};

enum class FaultProgram { kDaemon, kFetcher, kInjector };

namespace fault_internal {
extern std::atomic<bool> armed;
Status Pass(Fault point);
}  // namespace fault_internal

inline bool FaultPointsArmed() { return fault_internal::armed.load(std::memory_order_relaxed); }
// Passes a point; the Status is for steps that can fail.
inline Status PassFaultPoint(Fault point) {
  if (FaultPointsArmed()) [[unlikely]]
    return fault_internal::Pass(point);
  return Status();
}
// The same where nothing can fail.
inline void FaultPoint(Fault point) {
  PassFaultPoint(point).IgnoreError("what passes here cannot fail");
}

// Reads the file at `path`; without a file there is no fault.
Status ArmFaultPoint(const std::string& path);
// The names of a program's points, one a line.
void ListFaultPoints(FaultProgram program, std::ostream& out);

}  // namespace cachecore

#endif  // CACHECORE_BASE_FAULT_POINT_H_
