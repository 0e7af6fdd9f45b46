// Processes: finding our programs, starting the supervisor and ending what must end.
//
// Model    a running supervisor holds a record lock on its pid file; the lock names its holder and
//          goes with it, so a pid file left by a dead one, or whose pid now is somebody else's,
//          fools nobody.
// Errors   every Status says what to do.
// Threads  thread-safe: no state.

#ifndef CLI_PROCESS_H_
#define CLI_PROCESS_H_

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cachecore/status.h"
#include "cachecore/unique_fd.h"
#include "cli/deadline.h"
#include "cli/instance.h"

namespace cli {

inline constexpr char kSupervisor[] = "supervise";
inline constexpr char kDaemon[] = "holdfastd";
inline constexpr char kFetcher[] = "fetcherd";  // Its service, log and pid file.
inline constexpr char kFetcherProgram[] = "holdfast-fetcherd";

// A process that keeps its pid from being given to another one while this is open.
struct PinnedProcess {
  pid_t pid = 0;  // 0: there is none.
  cachecore::UniqueFd pidfd;
};

// $HOLDFAST_BIN_DIR/name, else beside this program or in the sbin next to it, else on $PATH; ENOENT
// names where it was sought.
cachecore::Result<std::string> FindProgram(const std::string& name);

// EBUSY when another process supervises the instance.  Held until the result is closed.
cachecore::Result<cachecore::UniqueFd> HoldSupervisorPidFile(const Instance& instance);
// 0 when no supervisor runs.
pid_t SupervisorPid(const Instance& instance);
PinnedProcess PinSupervisor(const Instance& instance);

// Starts `argv` in a session of its own, its output appended to `log`, with none of our
// descriptors, and of our environment with what a supervisor may have.
cachecore::Result<pid_t> SpawnDetached(const std::vector<std::string>& argv,
                                       const std::string& log);

struct ProgramEnd {
  int exit_code = 0;   // 128 and the signal's number when one has killed it.
  std::string output;  // stdout and stderr, as they came.
};
// A program of another package: on $PATH; ENOPKG names the package.
cachecore::Result<std::string> FindTool(const std::string& name, const std::string& package);

// Runs `argv` to its end; ETIMEDOUT or EINTR, and it is killed, when that does not come.
cachecore::Result<ProgramEnd> RunProgram(const std::vector<std::string>& argv,
                                         const Deadline& deadline);

struct ToolEnd {
  int exit_code = 0;
  std::string output;  // stdout, whole.
  std::string errors;  // stderr.
};
// As RunProgram, with what was asked for apart from what is said about it.
cachecore::Result<ToolEnd> RunTool(const std::vector<std::string>& argv, const Deadline& deadline);

PinnedProcess PinProcess(pid_t pid);
// Whether `pid` runs the program with this file name and `argument` is one of its arguments, whole.
bool RunsProgram(pid_t pid, const std::string& program, const std::string& argument);
// When a process was started, in the kernel's ticks since boot; nothing when it is gone.
std::optional<uint64_t> ProcessStart(pid_t pid);
// The pid in a pid file; 0 when there is none.
pid_t ReadPidFile(const std::string& path);
// Sends `signal` and waits until the process is gone; ETIMEDOUT when it isn't.
cachecore::Status EndProcess(const PinnedProcess& process, int signal,
                             std::chrono::milliseconds timeout);

}  // namespace cli

#endif  // CLI_PROCESS_H_
