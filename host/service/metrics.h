// Metrics of instances, for a monitoring system, in the text format of Prometheus.
//
// Model    made of status reports: of what holdfastd counts since its start and of what its
//          supervisor counts.  A value that is not known has no sample; holdfast_up says of each
//          instance whether holdfastd answers.  Counters begin at 0 when the process that counts
//          begins.
// Units    those of the names: bytes, seconds.
// Threads  pure functions.
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
