#include "host/build/contained_program.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <sstream>

#include "cachecore/base/clock.h"
#include "cachecore/base/deadline.h"
#include "cachecore/system/files.h"
#include "cachecore/system/process.h"
#include "cachecore/system/spawn.h"

namespace host {
namespace {

using cachecore::CallDuringWait;
using cachecore::Deadline;
using cachecore::Pipe;
using cachecore::ReadFile;
using cachecore::Result;
using cachecore::SpawnOptions;
using cachecore::Status;
using cachecore::StopSignalled;
using std::chrono::milliseconds;
using Fence = ContainedProgram::Fence;

constexpr size_t kOutputBytesMax = 64 << 10;
constexpr milliseconds kLookEvery{100};
constexpr milliseconds kStillMax{5 * 60 * 1000};

// In the child.  The step that failed, or null.
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
    CallDuringWait();
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

Result<pid_t> Start(const ContainedProgram& program, int output, int errors) {
  SpawnOptions options;
  options.argv = program.argv;
  if (program.own_environment) {
    options.environment = {EnvironmentVariable("PATH", "/usr/bin:/bin"),
                           "HOME=" + program.directory, "LC_ALL=C.UTF-8",
                           "TMPDIR=" + program.directory};
  }
  options.output = output;
  options.errors = errors;
  options.group = SpawnOptions::Group::kOwn;
  options.directory = program.directory;
  options.file_mode_mask = 022;
  options.in_child = [&program, parent = getpid()]() -> const char* {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);  // It had died before.
    return program.fence == Fence::kNone ? nullptr : FenceOff(program.directory, program.fence);
  };
  Result<pid_t> child = cachecore::Spawn(options);
  const int error = child.status().error();
  // A program that cannot be run, or a machine without memory: the rights would not help.
  if (child.ok() || (error != EPERM && error != ENOSYS)) return child;
  return Status(EPERM, program.argv[0] + " can't be contained (" + child.status().message() +
                           "): it needs root with CAP_SYS_ADMIN, and Linux 5.12 or newer");
}

}  // namespace

Result<ContainedEnd> RunContained(const ContainedProgram& program) {
  ASSIGN_OR_RETURN(Pipe output, Pipe::Make());
  ASSIGN_OR_RETURN(Pipe errors, Pipe::Make());
  ASSIGN_OR_RETURN(const pid_t child, Start(program, output.writer.get(), errors.writer.get()));
  output.writer.Reset();
  errors.writer.Reset();

  ContainedEnd end;
  Watch watch(program, child);
  const Status listened = Listen(output, errors, &watch, &end);
  if (!listened.ok()) {
    kill(-child, SIGKILL);
    cachecore::KillChild(child);
    return listened;
  }
  siginfo_t ended;
  while (waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT) < 0 && errno == EINTR) {
  }
  kill(-child, SIGKILL);  // What it has left behind, while the number is still its own.
  const int wait_status = cachecore::ReapChild(child);
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

}  // namespace host
