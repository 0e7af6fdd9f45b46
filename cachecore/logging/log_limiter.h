// LogLimiter: lets through what is logged up to a rate, and counts the rest.
//
// Model    a bucket of kBurst lines that fills with one a second.  The first line that comes
//          through after some were left out says how many.
// Threads  thread-safe; a leaf lock, not held while a line is written.
// Cost     memory and a lock.

#ifndef CACHECORE_LOGGING_LOG_LIMITER_H_
#define CACHECORE_LOGGING_LOG_LIMITER_H_

#include <glog/logging.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "cachecore/base/clock.h"
#include "cachecore/base/hex.h"
#include "cachecore/base/mutex.h"
#include "cachecore/logging/log_fields.h"

namespace cachecore {

class LogLimiter {
 public:
  static constexpr int64_t kBurst = 100;
  static constexpr Duration kRefill = std::chrono::seconds(1);

  explicit LogLimiter(const Clock& clock) : clock_(clock) {}

  void Warn(const std::string& line, const LogAbout& about = {}) EXCLUDES(mu_) {
    uint64_t missing = 0;
    if (Admit(&missing)) LOG(WARNING) << about << WithoutControls(line) << Told(missing);
  }
  void Error(const std::string& line, const LogAbout& about = {}) EXCLUDES(mu_) {
    uint64_t missing = 0;
    if (Admit(&missing)) LOG(ERROR) << about << WithoutControls(line) << Told(missing);
  }
  // All lines that were left out.
  uint64_t left_out() const EXCLUDES(mu_) {
    MutexLock lock(&mu_);
    return left_out_;
  }

  // False: leave the line out.  *missing: how many were, since one came through.
  bool Admit(uint64_t* missing) EXCLUDES(mu_) {
    MutexLock lock(&mu_);
    const Duration now = clock_.Now();
    // In time, not in lines: the moment from which on the bucket has been filling.
    full_at_ = std::max(full_at_, now - kBurst * kRefill);
    if (full_at_ + kRefill > now) {
      ++left_out_;
      ++untold_;
      return false;
    }
    full_at_ += kRefill;
    *missing = untold_;
    untold_ = 0;
    return true;
  }

 private:
  static std::string Told(uint64_t missing) {
    return missing == 0 ? "" : " (" + std::to_string(missing) + " lines were left out before this)";
  }

  const Clock& clock_;
  mutable Mutex mu_;
  Duration full_at_ GUARDED_BY(mu_) = Duration::min() / 2;
  uint64_t left_out_ GUARDED_BY(mu_) = 0;
  uint64_t untold_ GUARDED_BY(mu_) = 0;
};

}  // namespace cachecore

#endif  // CACHECORE_LOGGING_LOG_LIMITER_H_
