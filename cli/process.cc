#include "cli/process.h"

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
#include <filesystem>
#include <sstream>
#include <string_view>
#include <utility>

#include "cachecore/service_environment.h"
#include "cli/deadline.h"
#include "cli/files.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

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

struct flock WholeFileLock() {
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}

// What execv(2) takes.
std::vector<char*> PointersTo(std::vector<std::string>* strings) {
  std::vector<char*> pointers;
  for (std::string& string : *strings) pointers.push_back(string.data());
  pointers.push_back(nullptr);
  return pointers;
}

// Signals end the child as they end what it becomes; our own handlers would swallow one that comes
// before the exec.
pid_t ForkWithoutHandlers() {
  sigset_t all, before;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &before);
  const pid_t child = fork();
  const int error = errno;
  if (child == 0) {
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) std::signal(signal, SIG_DFL);
  }
  sigprocmask(SIG_SETMASK, &before, nullptr);
  errno = error;
  return child;
}

// Runs in the child between fork and exec.
[[noreturn]] void ExecDetached(const std::vector<char*>& argv, int null_fd, int out_fd,
                               int err_fd, char* const* environment) {
  setsid();
  if (chdir("/") != 0) _exit(127);
  umask(022);
  dup2(null_fd, STDIN_FILENO);
  dup2(out_fd, STDOUT_FILENO);
  dup2(err_fd, STDERR_FILENO);
  // A shell's pipe kept open by a daemon would keep the shell waiting.
  close_range(3, UINT_MAX, 0);
  execve(argv[0], argv.data(), environment);
  _exit(127);
}

// The program in one of $PATH's directories; "" when there is none.
std::string OnSearchPath(const std::string& name) {
  const char* search_path = std::getenv("PATH");
  std::istringstream directories(search_path != nullptr ? search_path : "/usr/bin:/bin");
  for (std::string directory; std::getline(directories, directory, ':');) {
    if (directory.starts_with("/") && IsProgram(directory + "/" + name)) {
      return directory + "/" + name;
    }
  }
  return "";
}

// Asks first, so that it can undo what it has begun.
void End(pid_t child) {
  kill(child, SIGTERM);
  const UniqueFd ended(pidfd_open(child, 0));
  pollfd ready = {ended.get(), POLLIN, 0};
  while (poll(&ready, 1, kEndPatienceMs) < 0 && errno == EINTR) {
  }
  kill(child, SIGKILL);
}

// Runs `argv` to its end and returns what it said to a pipe: on stderr, and on stdout too unless
// `out_fd` takes that.
Result<ProgramEnd> RunAndListen(const std::vector<std::string>& argv, int out_fd,
                                const Deadline& deadline) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return Status::FromErrno(errno, "pipe");
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  const UniqueFd null_fd(open("/dev/null", O_RDONLY | O_CLOEXEC));
  std::vector<std::string> copies = argv;
  const std::vector<char*> pointers = PointersTo(&copies);
  const pid_t child = ForkWithoutHandlers();
  if (child < 0) return Status::FromErrno(errno, "fork");
  if (child == 0) {
    ExecDetached(pointers, null_fd.get(), out_fd >= 0 ? out_fd : writer.get(), writer.get(),
                 environ);
  }
  writer.Reset();

  ProgramEnd end;
  Status status;
  char buffer[4096];
  ssize_t got = 1;
  while (status.ok() && got > 0 && end.output.size() < kOutputBytesMax) {
    status = WaitForFd(reader.get(), POLLIN, deadline);
    if (!status.ok()) break;
    got = read(reader.get(), buffer, sizeof buffer);
    if (got > 0) end.output.append(buffer, static_cast<size_t>(got));
  }
  // One that has closed its output may run on, and one that says too much is not listened to.
  if (!status.ok()) End(child);
  if (got > 0) kill(child, SIGKILL);
  int wait_status = 0;
  while (waitpid(child, &wait_status, 0) < 0 && errno == EINTR) {
  }
  RETURN_IF_ERROR(status);
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
  if (std::string found = OnSearchPath(name); !found.empty()) return found;
  return Status(ENOENT, name + " is neither in " + own +
                            " nor on $PATH; install it, or set HOLDFAST_BIN_DIR to its directory");
}

Result<UniqueFd> HoldSupervisorPidFile(const Instance& instance) {
  const std::string path = instance.PidFile(kSupervisor);
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd.valid()) return Status::FromErrno(errno, path);
  fchmod(fd.get(), 0600);  // An earlier version's: who may open it may lock it.
  struct flock lock = WholeFileLock();
  if (fcntl(fd.get(), F_SETLK, &lock) != 0) {
    return Status(EBUSY, "instance " + instance.name() + " is already supervised by process " +
                             std::to_string(SupervisorPid(instance)));
  }
  if (ftruncate(fd.get(), 0) != 0 || dprintf(fd.get(), "%d\n", getpid()) < 0) {
    return Status::FromErrno(errno, "write " + path);
  }
  return fd;
}

pid_t SupervisorPid(const Instance& instance) {
  const UniqueFd fd(open(instance.PidFile(kSupervisor).c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return 0;
  struct flock lock = WholeFileLock();
  if (fcntl(fd.get(), F_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) return 0;
  return lock.l_pid;
}

PinnedProcess PinSupervisor(const Instance& instance) {
  const pid_t pid = SupervisorPid(instance);
  PinnedProcess supervisor = PinProcess(pid);
  // The order matters: the pid is pinned first, then looked at.
  return SupervisorPid(instance) == pid ? std::move(supervisor) : PinnedProcess();
}

Result<pid_t> SpawnDetached(const std::vector<std::string>& argv, const std::string& log) {
  const UniqueFd null_fd(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const UniqueFd log_fd(open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!null_fd.valid()) return Status::FromErrno(errno, "/dev/null");
  if (!log_fd.valid()) return Status::FromErrno(errno, "open the log " + log);
  std::vector<std::string> copies = argv;
  const std::vector<char*> pointers = PointersTo(&copies);
  std::vector<char*> environment;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (cachecore::SupervisorMayHave(*variable)) environment.push_back(*variable);
  }
  environment.push_back(nullptr);
  const pid_t child = ForkWithoutHandlers();
  if (child < 0) return Status::FromErrno(errno, "fork");
  if (child == 0) {
    ExecDetached(pointers, null_fd.get(), log_fd.get(), log_fd.get(), environment.data());
  }
  return child;
}

Result<std::string> FindTool(const std::string& name, const std::string& package) {
  if (std::string found = OnSearchPath(name); !found.empty()) return found;
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

PinnedProcess PinProcess(pid_t pid) {
  if (pid <= 0) return {};
  PinnedProcess process{pid, UniqueFd(pidfd_open(pid, 0))};
  return process.pidfd.valid() ? std::move(process) : PinnedProcess();
}

bool RunsProgram(pid_t pid, const std::string& program, const std::string& argument) {
  const std::string proc = "/proc/" + std::to_string(pid);
  std::error_code error;
  std::string exe = std::filesystem::read_symlink(proc + "/exe", error).filename().string();
  constexpr std::string_view kDeleted = " (deleted)";  // By an upgrade, under the process.
  if (exe.ends_with(kDeleted)) exe.resize(exe.size() - kDeleted.size());
  if (error || exe != program) return false;
  const Result<std::string> arguments = ReadFile(proc + "/cmdline");
  std::istringstream stream(arguments.ok() ? *arguments : "");
  for (std::string one; std::getline(stream, one, '\0');) {
    if (one == argument) return true;
  }
  return false;
}

std::optional<uint64_t> ProcessStart(pid_t pid) {
  const Result<std::string> stat = ReadFile("/proc/" + std::to_string(pid) + "/stat");
  // The second field is the program's name, in parentheses and with whatever it likes in it.
  const size_t name_end = stat.ok() ? stat->rfind(')') : std::string::npos;
  if (name_end == std::string::npos) return std::nullopt;
  constexpr int kFieldsBetween = 19;  // proc(5): starttime is the 22nd.
  std::istringstream fields(stat->substr(name_end + 1));
  std::string skipped;
  for (int i = 0; i < kFieldsBetween; ++i) fields >> skipped;
  uint64_t ticks = 0;
  if (!(fields >> ticks)) return std::nullopt;
  return ticks;
}

pid_t ReadPidFile(const std::string& path) {
  const Result<std::string> text = ReadFile(path);
  return text.ok() ? static_cast<pid_t>(std::atoi(text->c_str())) : 0;
}

Status EndProcess(const PinnedProcess& process, int signal, std::chrono::milliseconds timeout) {
  if (process.pid == 0) return {};
  const int pidfd = process.pidfd.get();
  if (pidfd_send_signal(pidfd, signal, nullptr, 0) != 0) {
    if (errno == ESRCH) return {};
    return Status::FromErrno(errno, "signal process " + std::to_string(process.pid));
  }
  // A stop signal to us must not leave an instance half stopped, so this wait is not interrupted.
  const Deadline deadline(timeout);
  while (!deadline.Expired()) {
    pollfd entry = {pidfd, POLLIN, 0};
    if (poll(&entry, 1, static_cast<int>(deadline.Remaining().count())) > 0) return {};
  }
  return Status(ETIMEDOUT, "process " + std::to_string(process.pid) + " does not end");
}

}  // namespace cli
