// FollowSlowReads: what `holdfast trace slow` prints, as it happens.
//
// Model    asks the daemon ten times a second what has ended and what waits since the last answer.
//          A read that reaches the limit is shown at once, and again when it ends.  A daemon that
//          takes over begins a new history, which is said.
// Units    times of events by the machine's clock.
// Errors   EACCES, ENOENT, ECONNREFUSED: the instance cannot be asked at the start.  Later on the
//          next daemon is waited for.
// Threads  one thread only.
// Cost     bounded: nothing is kept of an event.

#ifndef HOST_WATCH_SLOW_READS_H_
#define HOST_WATCH_SLOW_READS_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <vector>

#include "cachecore/base/clock.h"
#include "cachecore/base/status.h"
#include "host/instance/instance.h"

namespace host {

struct SlowRead {
  std::string event;  // "waiting" or "ended".
  int64_t unix_us = 0;
  int64_t pid = 0;
  std::string command;
  std::vector<std::string> paths;  // The mount points, or the files, that show it.
  std::string volume;
  std::string object;
  uint64_t offset = 0;
  uint64_t length = 0;
  int64_t waited_us = 0;
  int error = 0;
  std::string why;
};

struct SlowReadOptions {
  cachecore::Duration over = std::chrono::milliseconds(200);
  bool json = false;
};

// A line each, without the newline.
std::string SlowReadToText(const SlowRead& read);
nlohmann::json SlowReadToJson(const SlowRead& read);

// Until a signal asks to stop, or `out` takes no more.  `notes` are sentences for people.
cachecore::Status FollowSlowReads(const Instance& instance, const SlowReadOptions& options,
                                  std::ostream& out, std::ostream& notes);

}  // namespace host

#endif  // HOST_WATCH_SLOW_READS_H_
