// Processes by pidfd: pinned, looked at and ended, never one that got the number later.
//
// Errors   ETIMEDOUT names the process that does not end.
// Threads  thread-safe: no state.

#ifndef CACHECORE_SYSTEM_PROCESS_H_
#define CACHECORE_SYSTEM_PROCESS_H_

#include <sys/types.h>

#include <chrono>
#include <string>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/system/pid_stamp.h"

namespace cachecore {

// A process that keeps its pid from being given to another one while this is open.
struct PinnedProcess {
  pid_t pid = 0;  // 0: there is none.
  UniqueFd pidfd;
};

PinnedProcess PinProcess(pid_t pid);
// Whether `pid` runs the program with this file name and `argument` is one of its arguments, whole.
bool RunsProgram(pid_t pid, const std::string& program, const std::string& argument);
// The process that a pid file names; none when it is gone, were another one of that number there.
PinnedProcess PinPidFile(const std::string& path);
// Sends `signal` and waits until the process is gone; ETIMEDOUT when it isn't.
Status EndProcess(const PinnedProcess& process, int signal, std::chrono::milliseconds timeout);
// Waits for a child process that ends, or has been killed; its status, as waitpid(2) gives it.
int ReapChild(pid_t child);
// Kills a child process and reaps it.  One that the kernel cannot end, since it waits in a file
// system that does not answer, is left behind after two seconds.
void KillChild(pid_t child);

}  // namespace cachecore

#endif  // CACHECORE_SYSTEM_PROCESS_H_
