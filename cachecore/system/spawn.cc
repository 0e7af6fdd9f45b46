#include "cachecore/system/spawn.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <sstream>
#include <utility>

#include "cachecore/system/process.h"

namespace cachecore {
namespace {

constexpr int kExitCannotExec = 127;

// What execve(2) takes.
std::vector<char*> PointersTo(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (const std::string& string : strings) pointers.push_back(const_cast<char*>(string.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

// What the child sends when it can't run the program.
struct Trouble {
  int error = 0;
  const char* step = nullptr;  // Null: execve(2).  The child has this program's addresses.
};

// All that the child uses, laid out before the fork.
struct ChildPlan {
  const SpawnOptions& options;
  const char* program;
  char* const* argv;
  char* const* environment;
  int descriptors[kPassedDescriptor + 1];  // Standard ones and the passed one; -1: none.
  int trouble_fd;
};

// Null, or the step that failed.
const char* Prepare(const ChildPlan& plan) {
  const SpawnOptions& options = plan.options;
  if (options.group == SpawnOptions::Group::kOwn && setpgid(0, 0) != 0) return "setpgid";
  if (options.group == SpawnOptions::Group::kOwnSession && setsid() < 0) return "setsid";
  if (options.file_mode_mask) umask(*options.file_mode_mask);
  if (options.in_child) {
    if (const char* const failed = options.in_child()) return failed;
  }
  if (!options.directory.empty() && chdir(options.directory.c_str()) != 0) {
    return "enter its directory";
  }
  // Moved out of the way first: one of them may have the number that another one is to get.
  int lifted[kPassedDescriptor + 1];
  for (int i = 0; i <= kPassedDescriptor; ++i) {
    lifted[i] = plan.descriptors[i];
    if (lifted[i] < 0) continue;
    lifted[i] = fcntl(lifted[i], F_DUPFD_CLOEXEC, kPassedDescriptor + 1);
    if (lifted[i] < 0) return "fcntl";
  }
  for (int i = 0; i <= kPassedDescriptor; ++i) {
    if (lifted[i] < 0) {
      close(i);
    } else if (dup2(lifted[i], i) < 0) {
      return "dup2";
    }
  }
  close_range(kPassedDescriptor + 1, static_cast<unsigned>(plan.trouble_fd) - 1, 0);
  close_range(static_cast<unsigned>(plan.trouble_fd) + 1, UINT_MAX, 0);
  // What ignores SIGPIPE, say, does not make its programs ignore it.
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE}) std::signal(signal, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  return nullptr;
}

[[noreturn]] void RunChild(const ChildPlan& plan) {
  Trouble trouble;
  trouble.step = Prepare(plan);
  if (trouble.step == nullptr) execve(plan.program, plan.argv, plan.environment);
  trouble.error = errno;
  const ssize_t sent = write(plan.trouble_fd, &trouble, sizeof trouble);
  static_cast<void>(sent);  // Without it the exit code is all that is known.
  _exit(kExitCannotExec);
}

// Our own signal handlers would swallow a signal that comes before the exec.
pid_t ForkWithSignalsBlocked() {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t child = fork();
  const int error = errno;
  if (child != 0) pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = error;
  return child;
}

// A descriptor that is none of those which the child replaces.
Result<UniqueFd> AboveReplaced(UniqueFd fd) {
  if (fd.get() > kPassedDescriptor) return fd;
  UniqueFd above(fcntl(fd.get(), F_DUPFD_CLOEXEC, kPassedDescriptor + 1));
  if (!above.valid()) return Status::FromErrno(errno, "fcntl");
  return above;
}

}  // namespace

Result<Pipe> Pipe::Make() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return Status::FromErrno(errno, "make a pipe");
  return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

Result<std::string> FindOnPath(const std::string& name) {
  const char* const search_path = std::getenv("PATH");
  std::istringstream directories(search_path != nullptr ? search_path : "/usr/bin:/bin");
  int error = ENOENT;
  for (std::string directory; std::getline(directories, directory, ':');) {
    if (!directory.starts_with("/")) continue;
    std::string path = directory + "/" + name;
    struct stat info;
    if (stat(path.c_str(), &info) == 0) {
      if (!S_ISREG(info.st_mode)) continue;
      if (access(path.c_str(), X_OK) == 0) return path;
    }
    if (errno == EACCES) error = EACCES;
  }
  return Status::FromErrno(error, "run " + name);
}

Result<pid_t> Spawn(const SpawnOptions& options) {
  std::string program = options.argv[0];
  if (program.find('/') == std::string::npos) {
    ASSIGN_OR_RETURN(program, FindOnPath(program));
  }
  const UniqueFd null_fd(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null_fd.valid()) return Status::FromErrno(errno, "/dev/null");
  ASSIGN_OR_RETURN(Pipe trouble_pipe, Pipe::Make());
  ASSIGN_OR_RETURN(UniqueFd trouble_fd, AboveReplaced(std::move(trouble_pipe.writer)));
  const std::vector<char*> argv = PointersTo(options.argv);
  const std::vector<char*> environment =
      options.environment ? PointersTo(*options.environment) : std::vector<char*>();
  const auto or_null = [&null_fd](int fd) { return fd >= 0 ? fd : null_fd.get(); };
  const ChildPlan plan = {
      options,
      program.c_str(),
      argv.data(),
      options.environment ? environment.data() : environ,
      {or_null(options.input), or_null(options.output), or_null(options.errors), options.passed},
      trouble_fd.get()};
  const pid_t child = ForkWithSignalsBlocked();
  if (child < 0) return Status::FromErrno(errno, "fork");
  if (child == 0) RunChild(plan);
  trouble_fd.Reset();
  Trouble trouble;
  ssize_t got;
  do {
    got = read(trouble_pipe.reader.get(), &trouble, sizeof trouble);
  } while (got < 0 && errno == EINTR);
  if (got != static_cast<ssize_t>(sizeof trouble)) return child;
  ReapChild(child);
  return Status::FromErrno(trouble.error,
                           trouble.step != nullptr ? trouble.step : "run " + options.argv[0]);
}

}  // namespace cachecore
