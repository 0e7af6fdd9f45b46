// Whether systemd runs an instance, by its unit holdfastd@NAME.service.
//
// Threads  fork(2)s, as CallInChild.

#ifndef CLI_SYSTEMD_UNIT_H_
#define CLI_SYSTEMD_UNIT_H_

#include <string>

#include "cli/instance.h"

namespace cli {

std::string DaemonUnit(const Instance& instance);
// The unit is up, on its way there, or between two lives.  False, too, when systemd doesn't tell.
bool SystemdRuns(const Instance& instance);

}  // namespace cli

#endif  // CLI_SYSTEMD_UNIT_H_
