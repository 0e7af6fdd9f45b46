// Whether systemd runs an instance, by its unit holdfastd@NAME.service.
//
// Threads  fork(2)s, as CallInChild.

#ifndef HOST_INSTANCE_SYSTEMD_UNIT_H_
#define HOST_INSTANCE_SYSTEMD_UNIT_H_

#include <string>

#include "host/instance/instance.h"

namespace host {

std::string DaemonUnit(const Instance& instance);
// The unit is up, on its way there, or between two lives.  False, too, when systemd doesn't tell.
bool SystemdRuns(const Instance& instance);
// What a unit of Type=notify waits for; nothing without $NOTIFY_SOCKET.
void SayReady(const std::string& status);

}  // namespace host

#endif  // HOST_INSTANCE_SYSTEMD_UNIT_H_
