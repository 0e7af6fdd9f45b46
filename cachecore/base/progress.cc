#include "cachecore/base/progress.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <iostream>

namespace cachecore {
namespace {

constexpr int kBarWidth = 30;
constexpr std::chrono::milliseconds kRedrawEvery{100};
constexpr std::chrono::seconds kLineEvery{10};  // Where there is no terminal.

Duration Now() { return Clock::Monotonic().Now(); }

}  // namespace

std::string BytesText(uint64_t bytes) {
  constexpr std::array<const char*, 5> kUnits = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  char text[64];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return text;
}

Progress::Progress() : Progress(isatty(STDERR_FILENO) == 1) {}

void Progress::Clear() {
  if (is_terminal_ && !step_.empty()) std::cerr << "\r\x1b[K" << std::flush;
  step_.clear();
}

void Progress::Begin(const std::string& step, uint64_t total) {
  step_ = step;
  total_ = total;
  began_ = drawn_ = Now();
  if (is_terminal_) Draw(0);
}

void Progress::At(uint64_t done) {
  if (Now() - drawn_ < (is_terminal_ ? Duration(kRedrawEvery) : kLineEvery)) return;
  drawn_ = Now();
  Draw(done);
}

void Progress::Draw(uint64_t done) const {
  std::string line = step_ + ": " + BytesText(done);
  if (total_ != 0) {
    const uint64_t shown = std::min(done, total_);
    const auto filled =
        static_cast<int>(static_cast<double>(shown) / static_cast<double>(total_) * kBarWidth);
    const std::string bar = std::string(static_cast<size_t>(filled), '#') +
                            std::string(static_cast<size_t>(kBarWidth - filled), '.');
    line = step_ + ": " + (is_terminal_ ? "[" + bar + "] " : "") + BytesText(shown) + " of " +
           BytesText(total_);
  }
  if (is_terminal_) {
    std::cerr << "\r" << line << "\x1b[K" << std::flush;
  } else {
    std::cerr << line << "\n";
  }
}

void Progress::End(const std::string& result) {
  const double seconds = std::chrono::duration<double>(Now() - began_).count();
  char time[32];
  std::snprintf(time, sizeof time, "%.1f s", seconds);
  std::cerr << (is_terminal_ ? "\r" : "") << step_ << ": " << result << ", " << time
            << (is_terminal_ ? "\x1b[K\n" : "\n");
  step_.clear();
}

}  // namespace cachecore
