// StatusWatch: the frames of `holdfast status --watch`.
//
// Model    a frame shows what has changed since the frame before it: rates, and which daemons were
//          replaced.  Worst first: instances by their health and their oldest wait, images by
//          trouble, wait and rate.  What does not fit is counted in the last line.
// Units    sizes in MiB and GiB, rates in MB (10^6 bytes) a second.
// Errors   none: what cannot be known is said in the frame.
// Threads  one thread only.
// Cost     memory: the last report of each instance.

#ifndef HOST_WATCH_STATUS_WATCH_H_
#define HOST_WATCH_STATUS_WATCH_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "cachecore/base/clock.h"
#include "host/service/status_report.h"

namespace host {

struct FrameSize {
  size_t columns = 80;
  size_t rows = 24;
};

class StatusWatch {
 public:
  // `is_named`: one instance was asked for by its name.
  explicit StatusWatch(bool is_named) : is_named_(is_named) {}

  // The lines of a frame, none longer than `size` and no more than fit.  `at` is when the reports
  // were gathered, `unix_s` the same for people.
  std::vector<std::string> Frame(const std::vector<StatusReport>& reports, cachecore::Duration at,
                                 int64_t unix_s, FrameSize size);

 private:
  struct Seen {
    StatusReport report;  // The last one with a daemon that answered.
    cachecore::Duration at{0};
    std::string replaced;  // What is said of a daemon that was replaced, until...
    cachecore::Duration replaced_until{0};
  };

  struct Part;
  Part PartOf(const StatusReport& report, cachecore::Duration at, int64_t unix_s);

  const bool is_named_;
  std::map<std::string, Seen> seen_;
};

}  // namespace host

#endif  // HOST_WATCH_STATUS_WATCH_H_
