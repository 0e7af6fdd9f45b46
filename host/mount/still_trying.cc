#include "host/mount/still_trying.h"

#include <chrono>
#include <iostream>
#include <utility>

namespace host {
namespace {

constexpr std::chrono::seconds kFirst{3};
constexpr std::chrono::seconds kEvery{30};

cachecore::Duration Now() { return cachecore::Clock::Monotonic().Now(); }

}  // namespace

StillTrying::StillTrying(bool quiet, std::function<std::string()> cause)
    : quiet_(quiet),
      cause_(std::move(cause)),
      due_(Now() + kFirst),
      during_waits_([this] { Tick(); }) {}

void StillTrying::Tick() {
  if (quiet_ || Now() < due_) return;
  std::cerr << "holdfast: still trying: " << cause_() << std::endl;
  due_ = Now() + kEvery;
}

}  // namespace host
