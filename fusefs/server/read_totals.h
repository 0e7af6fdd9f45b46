// ReadTotals: how the kernel's reads have ended, and how long those that waited have waited.
//
// Model    each read counts once, after its answer: as a hit (all bytes were present), a miss (it
//          waited for bytes and got them), failed, or cancelled (its reader was killed).
// Threads  thread-safe: no state of its own.
// Crash    a read that was answered and not counted yet is not counted; the kernel does not send it
//          again.  What the next daemon is sent again waits anew.

#ifndef FUSEFS_SERVER_READ_TOTALS_H_
#define FUSEFS_SERVER_READ_TOTALS_H_

#include <cerrno>

#include "cachecore/base/clock.h"
#include "cachecore/base/status.h"
#include "cachecore/totals/totals.h"

namespace fusefs {

class ReadTotals {
 public:
  // `totals` may be null: nothing is counted.
  explicit ReadTotals(cachecore::Totals* totals)
      : reads_(cachecore::Totals::Find(totals, "reads")),
        hits_(cachecore::Totals::Find(totals, "reads_by_result hit")),
        misses_(cachecore::Totals::Find(totals, "reads_by_result miss")),
        failed_(cachecore::Totals::Find(totals, "reads_by_result failed")),
        cancelled_(cachecore::Totals::Find(totals, "reads_by_result cancelled")),
        waits_(totals, "read_wait") {}

  void Came() const { reads_.Add(1); }
  // `waits_since`: when the read began to wait, or zero: it did not.
  void Ended(const cachecore::Status& status, cachecore::Duration waits_since) const {
    const bool waited = waits_since != cachecore::Duration::zero();
    if (waited) waits_.Note(cachecore::Clock::Monotonic().Now() - waits_since);
    if (status.ok()) {
      (waited ? misses_ : hits_).Add(1);
    } else {
      const bool is_cancelled = status.error() == EINTR || status.error() == ECANCELED;
      (is_cancelled ? cancelled_ : failed_).Add(1);
    }
  }

 private:
  const cachecore::Count reads_, hits_, misses_, failed_, cancelled_;
  const cachecore::TimeTotals waits_;
};

}  // namespace fusefs

#endif  // FUSEFS_SERVER_READ_TOTALS_H_
