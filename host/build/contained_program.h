// RunContained: runs a tool on input that may be hostile, and bounds what that can do.
//
// Model    the tool can write below one directory and nowhere else: it has a mount namespace of its
//          own, in which all the rest is read-only and no device can be opened, and, unless it is
//          to speak with a registry, no network.  It is ended when it has written too much, made
//          too many files, makes no progress, or when this process ends.  What it says is kept, the
//          last of it.
// Errors   EINTR stopped by a signal; EFBIG it wrote more than it may; ENOSPC it made too many
//          files; ETIMEDOUT it stood still; EPERM it can't be contained; else that of its start.  A
//          tool that says no is an exit code.
// Threads  one thread only.
// Crash    the tool dies with this process.

#ifndef HOST_BUILD_CONTAINED_PROGRAM_H_
#define HOST_BUILD_CONTAINED_PROGRAM_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "cachecore/base/status.h"

namespace host {

struct ContainedProgram {
  enum class Fence {
    kNone,   // For input that we made ourselves, and for users who may not make namespaces.
    kFiles,  // The file system is fenced off, the network and the environment are there.
    kAll,
  };

  std::vector<std::string> argv;  // argv[0] is a path.
  std::string directory;          // Where it runs; all it can write to.
  Fence fence = Fence::kAll;
  bool own_environment = true;  // Else it gets this process's: proxies, credentials.
  uint64_t written_bytes_max = std::numeric_limits<uint64_t>::max();
  std::function<void(uint64_t written_bytes)> on_progress;  // Every now and then; may be empty.
};

struct ContainedEnd {
  int exit_code = 0;   // 128 and the signal's number when one has killed it.
  std::string output;  // Of stdout and of stderr the last 64 KiB.
  std::string errors;
};

cachecore::Result<ContainedEnd> RunContained(const ContainedProgram& program);
// The same, and an exit code other than 0 is EIO with what `program` said last.
cachecore::Result<std::string> OutputOfContained(const ContainedProgram& program);

}  // namespace host

#endif  // HOST_BUILD_CONTAINED_PROGRAM_H_
