// FetcherTotals: what fetchers count, as names of the daemon's totals.
//
// Model    a fetcher names what it counts by words of its own, so their number is bounded here: at
//          most kMaxHosts hosts, and kMaxCodes codes of each; further ones count as "other".
// Errors   Take: the errno that the command gets; EINVAL for a count that is not known, or a word
//          that is not one.
// Threads  thread-safe.
// See      docs/protocol.md, "count"; docs/metrics.md.

#ifndef CACHECORE_ENGINE_FETCHER_TOTALS_H_
#define CACHECORE_ENGINE_FETCHER_TOTALS_H_

#include <cstddef>
#include <map>
#include <set>
#include <string>

#include "cachecore/base/mutex.h"
#include "cachecore/protocol/wire.h"
#include "cachecore/totals/totals.h"

namespace cachecore {

class FetcherTotals {
 public:
  static constexpr size_t kMaxHosts = 64;
  static constexpr size_t kMaxCodes = 16;
  static constexpr size_t kMaxCauses = 32;

  // `totals` may be null: then nothing is counted.
  explicit FetcherTotals(Totals* totals);
  // 0, or a negative errno.
  int Take(const wire::CountCommand& command) EXCLUDES(mu_);

 private:
  std::string HostOf(const std::string& host) REQUIRES(mu_);

  Totals* const totals_;
  Mutex mu_;
  std::set<std::string> hosts_ GUARDED_BY(mu_);
  std::map<std::string, std::set<std::string>> codes_ GUARDED_BY(mu_);  // Of each host.
  std::set<std::string> causes_ GUARDED_BY(mu_);
  std::map<std::string, Count> counts_ GUARDED_BY(mu_);  // Those that were found, by name.
};

}  // namespace cachecore

#endif  // CACHECORE_ENGINE_FETCHER_TOTALS_H_
