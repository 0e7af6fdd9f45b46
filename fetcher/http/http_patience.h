// How long an HTTP origin is waited for: until it is connected, until its first byte, and while
// bytes flow.
//
// Model    GrowingLimit: begins at `first`; a wait that reaches it in vain doubles it, up to
//          kLongest, so that an origin which needs its time gets it in the end.  It begins again
//          when nothing was slow for kMemory.  TransferWatch: one request.  From when it was sent
//          to the first byte of its body the first byte's limit counts, whatever headers come; then
//          fewer than `bytes_per_s` over `window` is a stall (never one if that is 0).
// Threads  thread-compatible.  Pure: time is passed in.

#ifndef FETCHER_HTTP_HTTP_PATIENCE_H_
#define FETCHER_HTTP_HTTP_PATIENCE_H_

#include <cstdint>
#include <optional>

#include "cachecore/base/clock.h"

namespace fetcher {

using cachecore::Duration;

class GrowingLimit {
 public:
  static constexpr Duration kLongest = std::chrono::minutes(5);
  static constexpr Duration kMemory = std::chrono::minutes(10);

  explicit GrowingLimit(Duration first) : first_(first), limit_(first) {}

  Duration Get(Duration now);
  // A wait of `limit` was not long enough.
  void TimedOut(Duration now, Duration limit);
  // What was waited for came after `took`.
  void Came(Duration now, Duration took);

 private:
  const Duration first_;
  Duration limit_;
  Duration needed_at_{0};  // When more than `first_` was last of use.
};

// An origin's.
struct HttpPatience {
  GrowingLimit connect;
  GrowingLimit first_byte;
};

class TransferWatch {
 public:
  enum class Verdict { kFine, kNoAnswer, kStalled };

  TransferWatch(uint64_t bytes_per_s, Duration window)
      : bytes_per_s_(bytes_per_s), window_(window) {}

  // A request begins.
  void Begin(Duration first_byte_limit);
  // It is known to have been sent; only the first time counts.
  void Sent(Duration now);
  void Bytes(Duration now, uint64_t count);
  Verdict Judge(Duration now) const;
  // When Judge has something to say if nothing happens until then.
  std::optional<Duration> Deadline() const;

  Duration first_byte_limit() const { return first_byte_limit_; }
  // From the request to its first byte; nullopt while there is none.
  std::optional<Duration> first_byte_took() const { return first_byte_took_; }

 private:
  uint64_t bytes_per_s_;
  Duration window_;
  Duration first_byte_limit_{0};
  std::optional<Duration> since_;  // When it was sent, then when this window began.
  std::optional<Duration> first_byte_took_;
  uint64_t window_bytes_ = 0;
};

}  // namespace fetcher

#endif  // FETCHER_HTTP_HTTP_PATIENCE_H_
