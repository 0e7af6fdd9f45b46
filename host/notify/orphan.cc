#include "host/notify/orphan.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>

#include "cachecore/base/deadline.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/system/files.h"
#include "cachecore/system/pid_stamp.h"

namespace host {
namespace {

using cachecore::DescriptorTable;
using cachecore::IsThere;
using cachecore::ParsePidStamp;
using cachecore::PidStamp;
using cachecore::PinnedProcess;
using cachecore::PinProcess;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
using std::chrono::milliseconds;

constexpr milliseconds kKillGrace{5000};
constexpr milliseconds kLookAgain{10};
constexpr milliseconds kEnding{500};

// "" for one that can't be read.
std::string TextOf(const std::string& path) {
  Result<std::string> text = cachecore::ReadFile(path);
  return text.ok() ? std::move(text).value() : "";
}

// A process that can be signalled without the risk that its pid has passed to another one.
bool EndsWithin(int pidfd, std::chrono::milliseconds limit) {
  pollfd wait{.fd = pidfd, .events = POLLIN, .revents = 0};
  return poll(&wait, 1, static_cast<int>(limit.count())) == 1;
}

bool SendSignal(int pidfd, int number) {
  return syscall(SYS_pidfd_send_signal, pidfd, number, nullptr, 0) == 0;
}

// As the kernel shows them.
std::string ArgumentsOf(pid_t pid) { return TextOf("/proc/" + std::to_string(pid) + "/cmdline"); }

std::string Joined(const std::vector<std::string>& argv) {
  std::string text;
  for (const std::string& argument : argv) text += argument + '\0';
  return text;
}

// The program's file name, which an upgrade under the running process leaves with " (deleted)"
// behind it.  Without CAP_SYS_PTRACE the arguments alone tell of another user's process.
bool RunsFile(pid_t pid, const std::string& program) {
  std::error_code error;
  std::string exe =
      std::filesystem::read_symlink("/proc/" + std::to_string(pid) + "/exe", error).filename();
  if (error) return error == std::errc::permission_denied;
  constexpr std::string_view kDeleted = " (deleted)";
  if (exe.ends_with(kDeleted)) exe.resize(exe.size() - kDeleted.size());
  auto real = std::filesystem::canonical(program, error);
  return !error && exe == real.filename();
}

Status RemovePidFile(const std::string& path) {
  if (unlink(path.c_str()) == 0 || errno == ENOENT) return Status();
  return Status::FromErrno(errno, "remove the stale pid file " + path);
}

Status OtherArguments(const std::string& program, const PidStamp& stamp) {
  std::string arguments = ArgumentsOf(stamp.pid);
  if (!arguments.empty()) arguments.pop_back();
  std::replace(arguments.begin(), arguments.end(), '\0', ' ');
  return Status(EBUSY, "process " + std::to_string(stamp.pid) + " (" + program +
                           ") of an earlier supervisor runs with other options: " + arguments +
                           "; give the same ones, or end it first (holdfast stop)");
}

}  // namespace

Result<std::optional<Orphan>> FindOrphan(const std::string& pid_path, const std::string& program,
                                         const std::vector<std::string>& argv,
                                         milliseconds list_time) {
  const PidStamp stamp = ParsePidStamp(TextOf(pid_path));
  if (stamp.started == 0) return std::optional<Orphan>();  // An earlier version's.
  Orphan orphan;
  // The order matters: the pid is pinned first, then looked at.
  orphan.process = PinProcess(stamp.pid);
  if (orphan.process.pid == 0 || !IsThere(stamp) || !RunsFile(stamp.pid, program)) {
    return std::optional<Orphan>();
  }
  const cachecore::Deadline deadline(list_time);
  for (;;) {
    auto stored = DescriptorTable::CopyFrom(stamp.pid, orphan.process.pidfd);
    const bool may_list = stored.status().error() == ENOENT && !deadline.Expired();
    // One that is ending has no descriptors any more, a moment before it has ended.
    const milliseconds wait = may_list ? kLookAgain : stored.ok() ? milliseconds(0) : kEnding;
    if (EndsWithin(orphan.process.pidfd.get(), wait)) return std::optional<Orphan>();
    if (may_list) continue;
    if (stored.status().error() == ENOENT) return std::optional<Orphan>();
    // First, since the caller may end one that may not be copied from, by these arguments alone.
    if (ArgumentsOf(stamp.pid) != Joined(argv)) return OtherArguments(program, stamp);
    if (!stored.ok()) {
      return Status(stored.status())
          .WithContext("go on with " + program + " of an earlier supervisor");
    }
    orphan.stored = std::move(stored).value();
    siginfo_t info = {};
    orphan.is_child =
        waitid(P_PID, static_cast<id_t>(stamp.pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0;
    return std::optional<Orphan>(std::move(orphan));
  }
}

Status CheckAdoptable(pid_t process, const UniqueFd& pidfd) {
  Status copied = DescriptorTable::CopyFrom(process, pidfd).status();
  if (copied.ok() || copied.error() == ENOENT || EndsWithin(pidfd.get(), kEnding)) {
    return Status();
  }
  return copied;
}

Result<pid_t> EndStaleProcess(const std::string& pid_path, const std::string& program,
                              const std::vector<std::string>& argv,
                              std::chrono::milliseconds term_grace) {
  const std::string text = TextOf(pid_path);
  const PidStamp stamp = ParsePidStamp(text);
  const pid_t pid = stamp.pid;
  UniqueFd pidfd(pid > 0 ? static_cast<int>(syscall(SYS_pidfd_open, pid, 0)) : -1);
  // The order matters: the pid is pinned first, then looked at.
  if (!pidfd.valid() || !IsThere(stamp) || !RunsFile(pid, program) ||
      ArgumentsOf(pid) != Joined(argv)) {
    RETURN_IF_ERROR(RemovePidFile(pid_path));
    return 0;
  }
  SendSignal(pidfd.get(), SIGTERM);
  SendSignal(pidfd.get(), SIGCONT);  // A stopped process would keep the SIGTERM for later.
  if (!EndsWithin(pidfd.get(), term_grace)) {
    SendSignal(pidfd.get(), SIGKILL);
    if (!EndsWithin(pidfd.get(), kKillGrace)) {
      return Status(EBUSY,
                    "process " + std::to_string(pid) + " (" + program +
                        ") of an earlier supervisor does not end even on SIGKILL; it hangs in "
                        "the kernel: abort its FUSE connection or restart the machine");
    }
  }
  RETURN_IF_ERROR(RemovePidFile(pid_path));
  return pid;
}

}  // namespace host
