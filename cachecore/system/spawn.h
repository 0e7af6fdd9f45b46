// Spawn: starts a program as a child process, with what it is to inherit and nothing more.
//
// Model    the child gets three standard descriptors and at most one more, no blocked signal, and
//          the default action for SIGINT, SIGTERM, SIGHUP, SIGQUIT and SIGPIPE.  Spawn returns
//          after the child has begun to run the program.  All programs are started here, with one
//          exception: host/supervisor/child_process.h starts the daemons from memory taken once,
//          since a supervisor must restart them while the machine has no memory left.
//          bounded_call.h and the fetcher's broker fork to run functions of this program.
// Errors   the errno of the step that failed in the child, whose process is reaped by then.
// Threads  thread-safe, but for a fork(2) elsewhere that runs no program: it would hold the pipe by
//          which Spawn learns that the program runs.

#ifndef CACHECORE_SYSTEM_SPAWN_H_
#define CACHECORE_SYSTEM_SPAWN_H_

#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"

namespace cachecore {

inline constexpr int kPassedDescriptor = 3;

struct SpawnOptions {
  enum class Group { kOurs, kOwn, kOwnSession };

  std::vector<std::string> argv;  // argv[0] without a '/' is looked up in $PATH.
  std::optional<std::vector<std::string>> environment;  // nullopt: ours.
  // The standard descriptors; -1 is /dev/null.
  int input = -1;
  int output = -1;
  int errors = -1;
  int passed = -1;  // Becomes kPassedDescriptor; -1: none.
  Group group = Group::kOurs;
  std::string directory;                 // "": ours.
  std::optional<mode_t> file_mode_mask;  // umask(2); nullopt: ours.
  // Called in the child before it enters `directory`: async-signal-safe calls only.  Returns the
  // name of the step that failed, with errno, or null.
  std::function<const char*()> in_child;
};

Result<pid_t> Spawn(const SpawnOptions& options);

// The program in one of the absolute directories of $PATH; ENOENT, or EACCES when each that is
// there may not be run.
Result<std::string> FindOnPath(const std::string& name);

struct Pipe {
  UniqueFd reader;
  UniqueFd writer;

  static Result<Pipe> Make();  // Both are closed on exec.
};

}  // namespace cachecore

#endif  // CACHECORE_SYSTEM_SPAWN_H_
