#include "cachecore/system/subprocess.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern "C" {  // glibc 2.36's header forgets to say so itself.
#include <sys/pidfd.h>
}

#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <utility>

#include "cachecore/environment/service_environment.h"
#include "cachecore/system/files.h"
#include "cachecore/system/process.h"
#include "cachecore/system/spawn.h"

namespace cachecore {
namespace {

constexpr size_t kOutputBytesMax = 64 << 10;
constexpr int kEndPatienceMs = 20000;

bool IsProgram(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) && access(path.c_str(), X_OK) == 0;
}

std::string OwnDirectory() {
  char path[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path);
  if (length <= 0) return ".";
  const std::string exe(path, static_cast<size_t>(length));
  return exe.substr(0, exe.rfind('/'));
}

// Asks first, so that it can undo what it has begun.
void End(pid_t child) {
  kill(child, SIGTERM);
  const UniqueFd ended(pidfd_open(child, 0));
  pollfd ready = {ended.get(), POLLIN, 0};
  while (poll(&ready, 1, kEndPatienceMs) < 0 && errno == EINTR) {
  }
  KillChild(child);
}

// In a session of its own, in "/".
SpawnOptions Detached(const std::vector<std::string>& argv, int output, int errors) {
  SpawnOptions options;
  options.argv = argv;
  options.output = output;
  options.errors = errors;
  options.group = SpawnOptions::Group::kOwnSession;
  options.directory = "/";
  options.file_mode_mask = 022;
  return options;
}

// Runs `argv` to its end and returns what it said to a pipe: on stderr, and on stdout too unless
// `out_fd` takes that.
Result<ProgramEnd> RunAndListen(const std::vector<std::string>& argv, int out_fd,
                                const Deadline& deadline) {
  ASSIGN_OR_RETURN(Pipe said, Pipe::Make());
  const int writer = said.writer.get();
  ASSIGN_OR_RETURN(const pid_t child, Spawn(Detached(argv, out_fd >= 0 ? out_fd : writer, writer)));
  said.writer.Reset();

  ProgramEnd end;
  Status status;
  char buffer[4096];
  ssize_t got = 1;
  while (status.ok() && got > 0 && end.output.size() < kOutputBytesMax) {
    status = WaitForFd(said.reader.get(), POLLIN, deadline);
    if (!status.ok()) break;
    got = read(said.reader.get(), buffer, sizeof buffer);
    if (got > 0) end.output.append(buffer, static_cast<size_t>(got));
  }
  // One that has closed its output may run on, and one that says too much is not listened to.
  if (!status.ok()) {
    End(child);
    return status;
  }
  if (got > 0) kill(child, SIGKILL);
  const int wait_status = ReapChild(child);
  end.exit_code = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
  return end;
}

}  // namespace

Result<std::string> FindProgram(const std::string& name) {
  const char* chosen = std::getenv("HOLDFAST_BIN_DIR");
  if (chosen != nullptr && chosen[0] != '\0') {
    const std::string path = std::string(chosen) + "/" + name;
    if (IsProgram(path)) return path;
    return Status(ENOENT, name + " is not in $HOLDFAST_BIN_DIR (" + chosen + ")");
  }
  const std::string own = OwnDirectory();
  for (const std::string& directory : {own, own + "/../sbin"}) {  // Daemons install into sbin.
    if (IsProgram(directory + "/" + name)) return directory + "/" + name;
  }
  if (Result<std::string> found = FindOnPath(name); found.ok()) return found;
  return Status(ENOENT, name + " is neither in " + own +
                            " nor on $PATH; install it, or set HOLDFAST_BIN_DIR to its directory");
}

Result<pid_t> SpawnDetached(const std::vector<std::string>& argv, const std::string& log) {
  const UniqueFd log_fd(open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!log_fd.valid()) return Status::FromErrno(errno, "open the log " + log);
  SpawnOptions options = Detached(argv, log_fd.get(), log_fd.get());
  options.environment.emplace();
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (SupervisorMayHave(*variable)) options.environment->push_back(*variable);
  }
  return Spawn(options);
}

Result<std::string> FindTool(const std::string& name, const std::string& package) {
  if (Result<std::string> found = FindOnPath(name); found.ok()) return found;
  return Status(ENOPKG, name + " is needed for this and not installed; install the package " +
                            package + " (apt-get install " + package + ")");
}

Result<ProgramEnd> RunProgram(const std::vector<std::string>& argv, const Deadline& deadline) {
  return RunAndListen(argv, -1, deadline);
}

Result<ToolEnd> RunTool(const std::vector<std::string>& argv, const Deadline& deadline) {
  const UniqueFd output(memfd_create("output", MFD_CLOEXEC));
  if (!output.valid()) return Status::FromErrno(errno, "memfd_create");
  ASSIGN_OR_RETURN(ProgramEnd ended, RunAndListen(argv, output.get(), deadline));
  ToolEnd end;
  end.exit_code = ended.exit_code;
  end.errors = std::move(ended.output);
  ASSIGN_OR_RETURN(end.output, ReadFile("/proc/self/fd/" + std::to_string(output.get())));
  return end;
}

}  // namespace cachecore
