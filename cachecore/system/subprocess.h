// Subprocesses: finding programs, running one to its end, starting one that outlives the caller.
//
// Model    a program is started by Spawn, in a session of its own and in "/".
// Errors   ENOENT or ENOPKG names the program and what to install; ETIMEDOUT or EINTR of a run,
//          whose process has been ended by then.
// Threads  as Spawn.

#ifndef CACHECORE_SYSTEM_SUBPROCESS_H_
#define CACHECORE_SYSTEM_SUBPROCESS_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"

namespace cachecore {

// $HOLDFAST_BIN_DIR/name, else beside this program or in the sbin next to it, else on $PATH; ENOENT
// names where it was sought.
Result<std::string> FindProgram(const std::string& name);

// Starts `argv` in a session of its own, its output appended to `log`, without the
// caller's descriptors, and with what a supervisor may have of its environment.
Result<pid_t> SpawnDetached(const std::vector<std::string>& argv, const std::string& log);

struct ProgramEnd {
  int exit_code = 0;   // 128 and the signal's number when one has killed it.
  std::string output;  // stdout and stderr, as they came.
};
// A program of another package: on $PATH; ENOPKG names the package.
Result<std::string> FindTool(const std::string& name, const std::string& package);

// Runs `argv` to its end; ETIMEDOUT or EINTR, and it is killed, when that does not come.
Result<ProgramEnd> RunProgram(const std::vector<std::string>& argv, const Deadline& deadline);

struct ToolEnd {
  int exit_code = 0;
  std::string output;  // stdout, whole.
  std::string errors;  // stderr.
};
// As RunProgram, with what was asked for apart from what is said about it.
Result<ToolEnd> RunTool(const std::vector<std::string>& argv, const Deadline& deadline);

}  // namespace cachecore

#endif  // CACHECORE_SYSTEM_SUBPROCESS_H_
