// InstanceProcesses: the living processes of an instance, also when its run directory was emptied.
//
// Model    A process is the instance's when it runs a program of ours, sees the same run directory
//          as this one, and holds a socket bound in it or was given exactly that directory.  Files
//          in the directory are not asked: they may be gone, or name a process that is another's
//          now.
// Errors   none: what can't be looked at is passed over.
// Threads  thread-safe: no state.
// See      proc_net_unix(5)

#ifndef CLI_INSTANCE_PROCESSES_H_
#define CLI_INSTANCE_PROCESSES_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "cachecore/status.h"
#include "cachecore/unique_fd.h"
#include "cli/instance.h"

namespace cli {

struct InstanceProcess {
  pid_t pid = 0;
  std::string program;  // holdfast (the supervisor), holdfastd or holdfast-fetcherd.
  cachecore::UniqueFd pidfd;
};

// Supervisors first: they would start again what is ended.
std::vector<InstanceProcess> FindInstanceProcesses(const Instance& instance);
// Ends them all, a process that does not end on SIGTERM by SIGKILL; EBUSY names what lives on.
cachecore::Status EndInstanceProcesses(const Instance& instance);

}  // namespace cli

#endif  // CLI_INSTANCE_PROCESSES_H_
