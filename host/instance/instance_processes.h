// InstanceProcesses: the living processes of an instance, also when its run directory was emptied.
//
// Model    A process is the instance's when it runs a Holdfast program, sees the same run directory
//          as this one, and holds a socket bound in it or was given exactly that directory.  Files
//          in the directory are not asked: they may be gone, or name a process that is another's
//          now.
// Errors   none: what can't be looked at is passed over.
// Threads  thread-safe: no state.
// See      proc_net_unix(5)

#ifndef HOST_INSTANCE_INSTANCE_PROCESSES_H_
#define HOST_INSTANCE_INSTANCE_PROCESSES_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "host/instance/instance.h"

namespace host {

struct InstanceProcess {
  pid_t pid = 0;
  std::string program;  // holdfast (the supervisor), holdfastd or holdfast-fetcherd.
  std::vector<std::string> arguments;
  cachecore::UniqueFd pidfd;
};

// The argument that tells one instance's holdfastd from another's, in each spelling that a
// supervisor of this or an earlier version gives it.
std::vector<std::string> RunDirArguments(const Instance& instance);
// Supervisors first: they would start again what is ended.
std::vector<InstanceProcess> FindInstanceProcesses(const Instance& instance);
// Ends them all, a process that does not end on SIGTERM by SIGKILL; EBUSY names what lives on.
cachecore::Status EndInstanceProcesses(const Instance& instance);

}  // namespace host

#endif  // HOST_INSTANCE_INSTANCE_PROCESSES_H_
