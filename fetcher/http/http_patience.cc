#include "fetcher/http/http_patience.h"

#include <algorithm>

namespace fetcher {

Duration GrowingLimit::Get(Duration now) {
  if (now - needed_at_ >= kMemory) limit_ = first_;
  return limit_;
}

void GrowingLimit::TimedOut(Duration now, Duration limit) {
  // Twice what this one had, not twice what there is: several that began together count once.
  limit_ = std::max(limit_, std::min(2 * limit, std::max(kLongest, first_)));
  needed_at_ = now;
}

void GrowingLimit::Came(Duration now, Duration took) {
  if (took > first_ / 2) needed_at_ = now;
}

void TransferWatch::Begin(Duration first_byte_limit) {
  first_byte_limit_ = first_byte_limit;
  since_.reset();
  first_byte_took_.reset();
  window_bytes_ = 0;
}

void TransferWatch::Sent(Duration now) {
  if (!since_) since_ = now;
}

void TransferWatch::Bytes(Duration now, uint64_t count) {
  Sent(now);
  if (!first_byte_took_) {
    first_byte_took_ = now - *since_;
    since_ = now;
  }
  window_bytes_ += count;
  const std::chrono::duration<double> window = window_;
  if (static_cast<double>(window_bytes_) < static_cast<double>(bytes_per_s_) * window.count()) {
    return;
  }
  since_ = now;
  window_bytes_ = 0;
}

TransferWatch::Verdict TransferWatch::Judge(Duration now) const {
  const std::optional<Duration> deadline = Deadline();
  if (!deadline || now < *deadline) return Verdict::kFine;
  return first_byte_took_ ? Verdict::kStalled : Verdict::kNoAnswer;
}

std::optional<Duration> TransferWatch::Deadline() const {
  if (!since_ || (first_byte_took_ && bytes_per_s_ == 0)) return std::nullopt;
  return *since_ + (first_byte_took_ ? window_ : first_byte_limit_);
}

}  // namespace fetcher
