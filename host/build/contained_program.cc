#include "cli/contained_program.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "cachecore/clock.h"
#include "cachecore/unique_fd.h"
#include "cli/deadline.h"
#include "cli/files.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
using std::chrono::milliseconds;
using Fence = ContainedProgram::Fence;

constexpr size_t kOutputBytesMax = 64 << 10;
constexpr milliseconds kLookEvery{100};
constexpr milliseconds kStillMax{5 * 60 * 1000};

struct Pipe {
  UniqueFd reader;
  UniqueFd writer;
};

Result<Pipe> MakePipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return Status::FromErrno(errno, "pipe");
  return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

std::vector<char*> PointersInto(std::vector<std::string>* strings) {
  std::vector<char*> pointers;
  for (std::string& string : *strings) pointers.push_back(string.data());
  pointers.push_back(nullptr);
  return pointers;
}

// In the child.  What failed, or null.
const char* FenceOff(const std::string& directory, Fence fence) {
  const int spaces = CLONE_NEWNS | CLONE_NEWIPC | (fence == Fence::kAll ? CLONE_NEWNET : 0);
  if (unshare(spaces) != 0) return "make namespaces";
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return "make mounts private";
  if (mount(directory.c_str(), directory.c_str(), nullptr, MS_BIND, nullptr) != 0) {
    return "bind its directory";
  }
  struct mount_attr all = {};
  all.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID;
  if (mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, &all, sizeof all) != 0) {
    return "make the file system read-only";
  }
  struct mount_attr own = {};
  own.attr_set = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
  own.attr_clr = MOUNT_ATTR_RDONLY;
  if (mount_setattr(AT_FDCWD, directory.c_str(), 0, &own, sizeof own) != 0) {
    return "make its directory writable";
  }
  return nullptr;
}

struct ChildEnds {
  int null_fd;
  int output_fd;
  int errors_fd;
  int trouble_fd;  // Where the child says why it could not exec.
};

[[noreturn]] void ExecContained(const ContainedProgram& program, const std::vector<char*>& argv,
                                const std::vector<char*>& environment, pid_t parent,
                                const ChildEnds& ends) {
  const char* failed = nullptr;
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);  // It had died before.
  umask(022);
  if (program.fence != Fence::kNone) failed = FenceOff(program.directory, program.fence);
  if (failed == nullptr && chdir(program.directory.c_str()) != 0) failed = "enter its directory";
  if (failed == nullptr) {
    dup2(ends.null_fd, STDIN_FILENO);
    dup2(ends.output_fd, STDOUT_FILENO);
    dup2(ends.errors_fd, STDERR_FILENO);
    close_range(3, UINT_MAX, CLOSE_RANGE_CLOEXEC);
    if (program.own_environment) {
      execve(argv[0], argv.data(), environment.data());
    } else {
      execv(argv[0], argv.data());
    }
    failed = "exec";
  }
  dprintf(ends.trouble_fd, "%s: %s", failed, std::strerror(errno));
  _exit(127);
}

// What /proc/PID/io and the CPU clock of `pid` say; all of it grows while it works.
struct Effort {
  uint64_t written_bytes = 0;
  uint64_t sum = 0;
};

Effort EffortOf(pid_t pid) {
  Effort effort;
  const std::string proc = "/proc/" + std::to_string(pid);
  const Result<std::string> counters = ReadFile(proc + "/io");
  std::istringstream io(counters.ok() ? *counters : "");
  std::string name;
  for (uint64_t value = 0; io >> name >> value;) {
    if (name == "wchar:") effort.written_bytes = value;
    effort.sum += value;
  }
  const Result<std::string> schedule = ReadFile(proc + "/schedstat");
  if (schedule.ok()) effort.sum += std::strtoull(schedule->c_str(), nullptr, 10);
  return effort;
}

uint64_t FreeFiles(const std::string& directory) {
  struct statvfs info = {};
  return statvfs(directory.c_str(), &info) == 0 ? info.f_ffree : 0;
}

// Watches one run and says when it is to end.
class Watch {
 public:
  Watch(const ContainedProgram& program, pid_t pid)
      : program_(program),
        pid_(pid),
        free_files_(FreeFiles(program.directory)),
        moved_at_(cachecore::Clock::Monotonic().Now()) {}

  Status Look() {
    const Effort effort = EffortOf(pid_);
    const cachecore::Duration now = cachecore::Clock::Monotonic().Now();
    if (effort.sum != last_sum_) moved_at_ = now;
    last_sum_ = effort.sum;
    if (program_.on_progress) program_.on_progress(effort.written_bytes);
    if (StopSignalled()) return Status(EINTR, "interrupted by a signal");
    if (effort.written_bytes > program_.written_bytes_max) {
      return Status(EFBIG, "more than " + std::to_string(program_.written_bytes_max) + " bytes");
    }
    // Half of the files that the file system can still hold are left to others.
    if (free_files_ > 0 && FreeFiles(program_.directory) < free_files_ / 2) {
      return Status(ENOSPC, "more files than half of what " + program_.directory + " can hold");
    }
    if (now - moved_at_ > kStillMax) {
      return Status(ETIMEDOUT, program_.argv[0] + " made no progress for 5 minutes");
    }
    return {};
  }

 private:
  const ContainedProgram& program_;
  const pid_t pid_;
  const uint64_t free_files_;
  cachecore::Duration moved_at_;
  uint64_t last_sum_ = 0;
};

// Appends what `fd` has; false at its end.
bool TakeOutput(int fd, std::string* text) {
  char buffer[4096];
  const ssize_t got = read(fd, buffer, sizeof buffer);
  if (got < 0) return errno == EINTR || errno == EAGAIN;
  if (got == 0) return false;
  text->append(buffer, static_cast<size_t>(got));
  if (text->size() > kOutputBytesMax) text->erase(0, text->size() - kOutputBytesMax);
  return true;
}

// Until both pipes have ended, which is when the program has.
Status Listen(const Pipe& output, const Pipe& errors, Watch* watch, ContainedEnd* end) {
  pollfd entries[2] = {{output.reader.get(), POLLIN, 0}, {errors.reader.get(), POLLIN, 0}};
  std::string* texts[2] = {&end->output, &end->errors};
  Deadline look(kLookEvery);
  while (entries[0].fd >= 0 || entries[1].fd >= 0) {
    const int ready = poll(entries, 2, static_cast<int>(look.Remaining().count()));
    if (ready < 0 && errno != EINTR) return Status::FromErrno(errno, "poll");
    for (int i = 0; ready > 0 && i < 2; ++i) {
      if (entries[i].revents != 0 && !TakeOutput(entries[i].fd, texts[i])) entries[i].fd = -1;
    }
    if (!look.Expired() && !StopSignalled()) continue;
    RETURN_IF_ERROR(watch->Look());
    look = Deadline(kLookEvery);
  }
  return {};
}

// The last line that says something, of a tool's output.
std::string LastLine(const std::string& text) {
  std::string last;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const size_t begin = line.find_first_not_of(" \t\r");
    if (begin != std::string::npos) last = line.substr(begin);
  }
  return last;
}

std::string EnvironmentVariable(const char* name, const char* fallback) {
  const char* value = std::getenv(name);
  return std::string(name) + "=" + (value != nullptr ? value : fallback);
}

}  // namespace

Result<ContainedEnd> RunContained(const ContainedProgram& program) {
  ASSIGN_OR_RETURN(Pipe output, MakePipe());
  ASSIGN_OR_RETURN(Pipe errors, MakePipe());
  ASSIGN_OR_RETURN(Pipe trouble, MakePipe());
  const UniqueFd null_fd(open("/dev/null", O_RDONLY | O_CLOEXEC));
  std::vector<std::string> arguments = program.argv;
  std::vector<std::string> variables = {EnvironmentVariable("PATH", "/usr/bin:/bin"),
                                        "HOME=" + program.directory, "LC_ALL=C.UTF-8",
                                        "TMPDIR=" + program.directory};
  const std::vector<char*> argv = PointersInto(&arguments);
  const std::vector<char*> environment = PointersInto(&variables);
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) return Status::FromErrno(errno, "fork");
  if (child == 0) {
    ExecContained(program, argv, environment, parent,
                  {null_fd.get(), output.writer.get(), errors.writer.get(), trouble.writer.get()});
  }
  setpgid(child, child);  // As it does itself: whoever comes first.
  output.writer.Reset();
  errors.writer.Reset();
  trouble.writer.Reset();

  ContainedEnd end;
  Watch watch(program, child);
  const Status listened = Listen(output, errors, &watch, &end);
  if (!listened.ok()) kill(-child, SIGKILL);
  siginfo_t ended;
  while (waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT) < 0 && errno == EINTR) {
  }
  kill(-child, SIGKILL);  // What it has left behind, while the number is still its own.
  int wait_status = 0;
  while (waitpid(child, &wait_status, 0) < 0 && errno == EINTR) {
  }
  RETURN_IF_ERROR(listened);
  std::string why;
  while (TakeOutput(trouble.reader.get(), &why)) {
  }
  if (!why.empty()) {
    return Status(EPERM, program.argv[0] + " can't be contained (" + why +
                             "): it needs root with CAP_SYS_ADMIN, and Linux 5.12 or newer");
  }
  end.exit_code = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
  return end;
}

Result<std::string> OutputOfContained(const ContainedProgram& program) {
  ASSIGN_OR_RETURN(const ContainedEnd end, RunContained(program));
  if (end.exit_code == 0) return end.output;
  std::string said = LastLine(end.errors.empty() ? end.output : end.errors);
  if (end.exit_code > 128) said = "killed by signal " + std::to_string(end.exit_code - 128);
  return Status(EIO, program.argv[0].substr(program.argv[0].rfind('/') + 1) + ": " + said);
}

}  // namespace cli
