// Deadline and the waits bounded by one; a signal that asks the command to stop ends any of them.
//
// Errors   the waits return ETIMEDOUT when the deadline passes and EINTR once a signal has come.
// Threads  one thread only.

#ifndef CLI_DEADLINE_H_
#define CLI_DEADLINE_H_

#include <chrono>
#include <functional>

#include "cachecore/clock.h"
#include "cachecore/status.h"

namespace cli {

class Deadline {
 public:
  explicit Deadline(std::chrono::milliseconds from_now)
      : end_(cachecore::Clock::Monotonic().Now() + from_now) {}
  // Never negative.
  std::chrono::milliseconds Remaining() const;
  bool Expired() const { return Remaining().count() == 0; }

 private:
  cachecore::Duration end_;
};

// From here on SIGINT, SIGTERM and SIGHUP end waits rather than the process, so that what was begun
// can be undone.
void CatchStopSignals();
bool StopSignalled();
// While one lives, such a signal is remembered and ends nothing: for undoing.
class StopSignalsIgnored {
 public:
  StopSignalsIgnored();
  ~StopSignalsIgnored();
  StopSignalsIgnored(const StopSignalsIgnored&) = delete;
  StopSignalsIgnored& operator=(const StopSignalsIgnored&) = delete;
};

// Until `fd` has one of poll(2)'s `events` or hung up.
cachecore::Status WaitForFd(int fd, short events, const Deadline& deadline);
// Asks `done` every few milliseconds until it says true.
cachecore::Status WaitUntil(const std::function<bool()>& done, const Deadline& deadline);

}  // namespace cli

#endif  // CLI_DEADLINE_H_
