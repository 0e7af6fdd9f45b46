#include "fetcher/transfer/transfer_limit.h"

#include <chrono>

namespace fetcher {

TransferLimit::TransferLimit(uint32_t most)
    : most_(most), value_(std::max(std::min(kFirst, most), most / 2)) {}

void TransferLimit::StartRound(Duration now) {
  began_ = now;
  bytes_ = full_bytes_ = 0;
}

void TransferLimit::Brought(uint64_t bytes, uint32_t under_way, Duration now) {
  const bool paused = last_ == Duration::zero() || now - last_ > kPause;
  last_ = now;
  if (paused) return StartRound(now);  // When these bytes began to come is not known.
  bytes_ += bytes;
  if (under_way >= value_) full_bytes_ += bytes;
  const Duration taken = now - began_;
  if (taken < kRound) return;
  const bool was_full = full_bytes_ * 4 >= bytes_ * 3;
  const double rate = static_cast<double>(bytes_) / std::chrono::duration<double>(taken).count();
  StartRound(now);
  rate_ = rate;
  if (was_full) Judge(rate, now);
}

void TransferLimit::Judge(double rate, Duration now) {
  if (before_ > value_) {
    if (rate < rate_before_ * kKept) value_ = before_;
    before_ = 0;
    next_step_down_ = now + kTryAgain;
    return;
  }
  if (before_ != 0 && rate < rate_before_ * kGain) {
    if (--rounds_left_ > 0) return;
    value_ = before_;
    before_ = 0;
    next_step_up_ = now + kTryAgain;
    return;
  }
  before_ = 0;
  if (rate >= value_ * kEnough) {
    if (value_ > kFirst && now >= next_step_down_) Step(std::max(kFirst, value_ / 2), rate);
  } else if (value_ < most_ && now >= next_step_up_) {
    Step(value_ > most_ / 2 ? most_ : value_ * 2, rate);
  }
}

void TransferLimit::Step(uint32_t value, double rate) {
  before_ = value_;
  rate_before_ = rate;
  rounds_left_ = kRounds;
  value_ = value;
}

void TransferLimit::Failed(Duration now) {
  value_ = std::min(kFirst, most_);
  before_ = 0;
  rate_ = 0;  // It was that of more transfers.
  next_step_up_ = now + kTryAgain;
  StartRound(now);
}

}  // namespace fetcher
