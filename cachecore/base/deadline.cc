#include "cachecore/base/deadline.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <utility>

namespace cachecore {
namespace {

using std::chrono::milliseconds;

volatile std::sig_atomic_t stop_signalled = 0;
int ignoring = 0;  // How many StopSignalsIgnored exist.

const std::function<void()>* during_waits = nullptr;  // A DuringWaits's, unless it is being called.

void OnStopSignal(int signal) { stop_signalled = signal; }

Status Interrupted() { return Status(EINTR, "interrupted by a signal"); }

}  // namespace

milliseconds Deadline::Remaining() const {
  const Duration left = end_ - Clock::Monotonic().Now();
  return std::max(milliseconds(0), std::chrono::ceil<milliseconds>(left));
}

void CatchStopSignals() {
  struct sigaction action = {};
  action.sa_handler = OnStopSignal;  // No SA_RESTART: a blocked call is to return.
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction before = {};
    sigaction(signal, nullptr, &before);
    if (before.sa_handler != SIG_IGN) sigaction(signal, &action, nullptr);  // nohup stays nohup.
  }
}

bool StopSignalled() { return stop_signalled != 0 && ignoring == 0; }

int StopSignal() { return stop_signalled; }

DuringWaits::DuringWaits(std::function<void()> tick) : tick_(std::move(tick)) {
  during_waits = &tick_;
}
DuringWaits::~DuringWaits() { during_waits = nullptr; }

void CallDuringWait() {
  const std::function<void()>* tick = std::exchange(during_waits, nullptr);
  if (tick == nullptr) return;
  (*tick)();
  during_waits = tick;
}

StopSignalsIgnored::StopSignalsIgnored() { ++ignoring; }
StopSignalsIgnored::~StopSignalsIgnored() { --ignoring; }

Status WaitForFd(int fd, short events, const Deadline& deadline) {
  for (;;) {
    if (StopSignalled()) return Interrupted();
    pollfd entry = {fd, events, 0};
    // A signal that lands between the test above and poll() is seen one step later, at most.
    const auto step = std::min<int64_t>(deadline.Remaining().count(), 500);
    const int n = poll(&entry, 1, static_cast<int>(step));
    if (n > 0) return {};
    if (n < 0 && errno != EINTR) return Status::FromErrno(errno, "poll");
    CallDuringWait();
    if (deadline.Expired()) return Status(ETIMEDOUT, "no answer in time");
  }
}

Status WaitUntil(const std::function<bool()>& done, const Deadline& deadline) {
  for (int step_ms = 1;; step_ms = std::min(step_ms * 2, 50)) {
    if (done()) return {};
    if (StopSignalled()) return Interrupted();
    if (deadline.Expired()) return Status(ETIMEDOUT, "no answer in time");
    CallDuringWait();
    poll(nullptr, 0, step_ms);
  }
}

}  // namespace cachecore
