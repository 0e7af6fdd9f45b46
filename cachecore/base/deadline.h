// Deadline and the waits bounded by one; a signal that asks the command to stop ends any of them.
//
// Errors   the waits return ETIMEDOUT when the deadline passes and EINTR once a signal has come.
// Threads  one thread only.

#ifndef CACHECORE_BASE_DEADLINE_H_
#define CACHECORE_BASE_DEADLINE_H_

#include <chrono>
#include <functional>

#include "cachecore/base/clock.h"
#include "cachecore/base/status.h"

namespace cachecore {

class Deadline {
 public:
  explicit Deadline(std::chrono::milliseconds from_now)
      : end_(Clock::Monotonic().Now() + from_now) {}
  // Never negative.
  std::chrono::milliseconds Remaining() const;
  bool Expired() const { return Remaining().count() == 0; }

 private:
  Duration end_;
};

// From here on SIGINT, SIGTERM and SIGHUP end waits rather than the process, so that what was begun
// can be undone.
void CatchStopSignals();
bool StopSignalled();
// The signal that has come, or 0.
int StopSignal();
// While one exists, such a signal is remembered and ends nothing: for undoing.
class StopSignalsIgnored {
 public:
  StopSignalsIgnored();
  ~StopSignalsIgnored();
  StopSignalsIgnored(const StopSignalsIgnored&) = delete;
  StopSignalsIgnored& operator=(const StopSignalsIgnored&) = delete;
};

// While one exists, the waits below call `tick` twice a second or more often.  Waits of `tick`
// itself do not.
class DuringWaits {
 public:
  explicit DuringWaits(std::function<void()> tick);
  ~DuringWaits();
  DuringWaits(const DuringWaits&) = delete;
  DuringWaits& operator=(const DuringWaits&) = delete;

 private:
  std::function<void()> tick_;
};

// For a wait that is none of those below.
void CallDuringWait();

// Until `fd` has one of poll(2)'s `events` or hung up.
Status WaitForFd(int fd, short events, const Deadline& deadline);
// Asks `done` every few milliseconds until it says true.
Status WaitUntil(const std::function<bool()>& done, const Deadline& deadline);

}  // namespace cachecore

#endif  // CACHECORE_BASE_DEADLINE_H_
