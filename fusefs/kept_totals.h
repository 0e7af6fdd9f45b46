// KeptTotals: the daemon's totals, in the fd store and in a file of the cache directory.
//
// Model    a daemon goes on with the memory that the one before it has left in the fd store.  Where
//          there is none, as in an instance that starts anew, it goes on with the file.
// Errors   what cannot be kept is logged once a spell; without memory nothing is counted.
// Threads  Keep by one thread at a time; the totals are thread-safe.
// Owns     the totals, and CACHE_DIR/totals.
// Crash    the memory has all that was counted.  It goes with the fd store: then what was counted
//          since the last Keep is lost.
// See      docs/metrics.md.

#ifndef FUSEFS_KEPT_TOTALS_H_
#define FUSEFS_KEPT_TOTALS_H_

#include <memory>
#include <string>

#include "cachecore/totals/totals.h"
#include "fusefs/service/fd_store.h"

namespace fusefs {

class KeptTotals {
 public:
  KeptTotals(const std::string& cache_dir, FdStore* store);

  // Null where there is no memory for them.
  cachecore::Totals* totals() const { return totals_.get(); }
  // Writes the file, if something was counted since.
  void Keep();

 private:
  const std::string path_;
  std::unique_ptr<cachecore::Totals> totals_;
  std::string kept_;         // What the file has.
  bool is_failing_ = false;  // That it cannot be written was logged.
};

}  // namespace fusefs

#endif  // FUSEFS_KEPT_TOTALS_H_
