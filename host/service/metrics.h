// Metrics of instances, for a monitoring system, in the text format of Prometheus.
//
// Model    made of status reports: of what holdfastd and its supervisor count, and of /proc.  A
//          value that is not known has no sample; holdfast_up says of each instance whether
//          holdfastd answers.
// Units    those of the names: bytes, seconds.
// Threads  thread-safe: no state.
// See      docs/metrics.md

#ifndef HOST_SERVICE_METRICS_H_
#define HOST_SERVICE_METRICS_H_

#include <string>
#include <vector>

#include "host/service/status_report.h"

namespace host {

std::string MetricsText(const std::vector<StatusReport>& reports);

}  // namespace host

#endif  // HOST_SERVICE_METRICS_H_
