// TransferLimit: how many transfers at once help at one origin.
//
// Model    starts at half of the most, at least at kFirst.  While a transfer brings less than
//          kEnough, the number doubles: a step that does not bring at least kGain times the bytes a
//          second in kRounds rounds is taken back, and tried again after kTryAgain.  Where each
//          brings that much the origin caps none, and each more costs processor time: the number is
//          halved for a round, and stays so if that brings kKept of the bytes.  A round is kRound
//          of time in which every transfer that the number allows was under way.  A round in
//          which the reader was the slower side concludes nothing.
//          A range is as long as a transfer takes kRangeTime for, by the last round.
// Units    bytes; monotonic time.
// Errors   none.
// Threads  thread-compatible.
// Crash    memory only: a restarted fetcher starts from the beginning.

#ifndef FETCHER_TRANSFER_TRANSFER_LIMIT_H_
#define FETCHER_TRANSFER_TRANSFER_LIMIT_H_

#include <algorithm>
#include <cstdint>

#include "cachecore/base/clock.h"

namespace fetcher {

using cachecore::Duration;

class TransferLimit {
 public:
  static constexpr uint32_t kFirst = 4;
  static constexpr double kGain = 1.2;
  static constexpr double kKept = 0.9;
  static constexpr double kEnough = 100e6;  // Bytes a second.
  static constexpr Duration kRound = std::chrono::milliseconds(50);
  // New connections need a while to get up to speed, and other programs disturb a round.
  static constexpr int kRounds = 8;
  // A pause in which nothing came is not part of a round.
  static constexpr Duration kPause = std::chrono::seconds(1);
  static constexpr Duration kTryAgain = std::chrono::seconds(5);

  // The transfers that a step adds find bytes in the read-ahead window that no other has taken, and
  // a range takes long beside the wait for its first byte.
  static constexpr Duration kRangeTime = std::chrono::milliseconds(80);
  static constexpr uint64_t kSmallestRange = 2 << 20;

  // `most` >= 1: never more than these.
  explicit TransferLimit(uint32_t most);

  uint32_t value() const { return value_; }
  // The largest range of one transfer, of `max_bytes`: what one brings in kRangeTime.
  uint64_t LargestRange(uint64_t max_bytes) const {
    const double seconds = std::chrono::duration<double>(kRangeTime).count();
    const auto bytes = static_cast<uint64_t>(rate_ * seconds / value_);
    return std::min(max_bytes, std::max(bytes, kSmallestRange));
  }
  // Among how many transfers what is wanted is shared out.
  uint32_t Sharers() const { return rate_ >= value_ * kEnough ? 1 : value_; }
  // `bytes` have come while `under_way` transfers were.
  void Brought(uint64_t bytes, uint32_t under_way, Duration now);
  // The origin refused to serve so many, or failed: starts at kFirst again.
  void Failed(Duration now);

 private:
  void StartRound(Duration now);
  void Judge(double rate, Duration now);
  void Step(uint32_t value, double rate);

  uint32_t most_;
  uint32_t value_;
  uint32_t before_ = 0;       // What value_ is compared with; 0: no step is being judged.
  double rate_before_ = 0;    // Bytes a second with that.
  int rounds_left_ = 0;       // For value_ to show that it helps.
  Duration next_step_up_{0};  // No sooner.
  Duration next_step_down_{0};
  Duration began_{0};        // The round.
  Duration last_{0};         // When bytes came last; 0: never.
  double rate_ = 0;          // Bytes a second of the last round.
  uint64_t bytes_ = 0;       // Of the round.
  uint64_t full_bytes_ = 0;  // Of those, what came while value_ transfers were under way.
};

}  // namespace fetcher

#endif  // FETCHER_TRANSFER_TRANSFER_LIMIT_H_
