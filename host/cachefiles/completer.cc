#include "host/cachefiles/completer.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "cachecore/base/unique_fd.h"
#include "cachecore/base/unix_socket.h"
#include "fusefs/cachefiles/preload/device_calls.h"
#include "host/cachefiles/completion_filter.h"
#include "host/cachefiles/completion_service.h"
#include "host/cachefiles/private_device.h"

namespace host {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

namespace {

constexpr std::string_view kReady = "ready";

// Leaves the session, the terminal and the descriptors of the process that it was started for.
void Detach(int socket) {
  setsid();
  for (const int signal : {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGPIPE, SIGALRM}) {
    std::signal(signal, SIG_IGN);
  }
  const int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (const int fd : {0, 1, 2}) dup2(nowhere, fd);
  close_range(3, static_cast<unsigned>(socket) - 1, 0);
  close_range(static_cast<unsigned>(socket) + 1, ~0U, 0);
  // A file system that the process was started in can be unmounted.
  if (chdir("/") != 0) _exit(1);
}

// Says to the device which process makes the completions, and tries whether this one can.
Status Prepare(pid_t program, int its_socket) {
  const UniqueFd fd = DescriptorOf(program, its_socket);
  if (!fd.valid()) {
    return Status::FromErrno(errno,
                             "taking a descriptor of another process by pidfd_getfd(2), as "
                             "--exact-ids does");
  }
  if (setxattr(kCachefilesPath, fusefs::kExactIdsName, "", 0, 0) == 0) return Status();
  return Status::FromErrno(errno,
                           "telling the device of --exact-ids, which needs CAP_SYS_ADMIN and a "
                           "PID that its holdfastd sees, and a holdfastd of this version");
}

// The completer's life.  Its first packet has the filter's listener.
[[noreturn]] void RunCompleter(UniqueFd socket, pid_t program, int its_socket) {
  UniqueFd kept(fcntl(socket.get(), F_DUPFD_CLOEXEC, 3));
  if (!kept.valid()) _exit(1);
  Detach(kept.get());
  char byte = 0;
  UniqueFd listener;
  const auto packet =
      cachecore::ReceiveWithDescriptors(kept.get(), std::span(&byte, 1), std::span(&listener, 1));
  if (packet.size != 1 || !listener.valid()) _exit(1);
  const auto report = [&kept](std::string_view text) {
    (void)send(kept.get(), text.data(), text.size(), MSG_NOSIGNAL);
    kept.Reset();
  };
  Status status = Prepare(program, its_socket);
  if (status.ok()) status = ServeCompletions(listener.get(), [&report] { report(kReady); });
  if (!status.ok()) report(status.message());
  _exit(status.ok() ? 0 : 1);
}

// A process whose parent is not this one.
Status SpawnCompleter(UniqueFd* its_end, const UniqueFd& our_end) {
  const pid_t program = getpid();
  const pid_t child = fork();
  if (child == 0) {
    const pid_t completer = fork();
    if (completer == 0) RunCompleter(std::move(*its_end), program, our_end.get());
    _exit(completer < 0 ? errno : 0);
  }
  const int fork_error = errno;
  its_end->Reset();
  int status = 0;
  if (child < 0) return Status::FromErrno(fork_error, "starting a process");
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (status == 0) return Status();
  return Status::FromErrno(WEXITSTATUS(status), "starting a process");
}

}  // namespace

Status StartCompleter() {
  std::array<int, 2> ends = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return Status::FromErrno(errno, "socketpair");
  }
  const UniqueFd ours(ends[0]);
  UniqueFd its(ends[1]);
  // Before the filter: it must not have it.
  RETURN_IF_ERROR(SpawnCompleter(&its, ours));
  ASSIGN_OR_RETURN(const UniqueFd listener, InstallCompletionFilter());
  std::array<char, 512> report;
  ssize_t size = -1;
  if (cachecore::SendWithDescriptor(ours.get(), "L", listener.get()) == 1) {
    size = recv(ours.get(), report.data(), report.size(), 0);
  }
  if (size <= 0) return Status(EPIPE, "the process that --exact-ids needs has died");
  const std::string_view text(report.data(), static_cast<size_t>(size));
  return text == kReady ? Status() : Status(EIO, std::string(text));
}

}  // namespace host
