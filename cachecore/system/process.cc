#include "cachecore/system/process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern "C" {  // glibc 2.36's header lacks it.
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

#include "cachecore/base/deadline.h"
#include "cachecore/environment/service_environment.h"
#include "cachecore/system/files.h"

namespace cachecore {
namespace {

constexpr std::chrono::milliseconds kKillTimeout{2000};

}  // namespace

int ReapChild(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

void KillChild(pid_t child) {
  kill(child, SIGKILL);
  const UniqueFd pidfd(pidfd_open(child, 0));
  const Deadline deadline(kKillTimeout);
  while (pidfd.valid() && !deadline.Expired()) {
    pollfd ended = {pidfd.get(), POLLIN, 0};
    if (poll(&ended, 1, static_cast<int>(deadline.Remaining().count())) > 0) break;
  }
  waitpid(child, nullptr, pidfd.valid() ? WNOHANG : 0);
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

PinnedProcess PinPidFile(const std::string& path) {
  const Result<std::string> text = ReadFile(path);
  const PidStamp stamp = ParsePidStamp(text.ok() ? *text : "");
  PinnedProcess process = PinProcess(stamp.pid);
  // The order matters: the pid is pinned first, then looked at.
  return IsThere(stamp) ? std::move(process) : PinnedProcess();
}

Status EndProcess(const PinnedProcess& process, int signal, std::chrono::milliseconds timeout) {
  if (process.pid == 0) return {};
  const int pidfd = process.pidfd.get();
  if (pidfd_send_signal(pidfd, signal, nullptr, 0) != 0) {
    if (errno == ESRCH) return {};
    return Status::FromErrno(errno, "signal process " + std::to_string(process.pid));
  }
  // A stop signal to this process must not leave an instance half stopped, so this wait is not
  // interrupted.
  const Deadline deadline(timeout);
  while (!deadline.Expired()) {
    pollfd entry = {pidfd, POLLIN, 0};
    if (poll(&entry, 1, static_cast<int>(deadline.Remaining().count())) > 0) return {};
  }
  return Status(ETIMEDOUT, "process " + std::to_string(process.pid) + " does not end");
}

}  // namespace cachecore
