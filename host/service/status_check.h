// StatusCheck: whether instances serve, in one line and a number, for a monitor.
//
// Model    the worst of all instances that count decides.
// Threads  pure functions.
// See      holdfast(1) "holdfast status"

#ifndef HOST_SERVICE_STATUS_CHECK_H_
#define HOST_SERVICE_STATUS_CHECK_H_

#include <string>
#include <vector>

#include "host/service/status_report.h"

namespace host {

// In the order of severity, and as exit codes.
enum class Health { kFine = 0, kDegraded = 1, kNotServing = 2, kNotKnown = 3 };

struct StatusCheck {
  Health health = Health::kFine;
  std::string line;  // Without a newline.
};

// Whether a monitor is told of the instance: one that was stopped, and has neither mounts nor
// processes, only where it is asked for by name.
bool Counts(const StatusReport& report, bool is_named);
StatusCheck CheckStatus(const std::vector<StatusReport>& reports, bool is_named);

}  // namespace host

#endif  // HOST_SERVICE_STATUS_CHECK_H_
