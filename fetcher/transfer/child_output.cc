#include "fetcher/transfer/child_output.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <utility>

#include "cachecore/base/unique_fd.h"
#include "cachecore/system/process.h"
#include "cachecore/system/spawn.h"

namespace fetcher {
namespace {

using cachecore::Duration;
using cachecore::Pipe;
using cachecore::Result;
using cachecore::SpawnOptions;
using cachecore::Status;
using cachecore::UniqueFd;

constexpr size_t kMaxOutput = 64 << 10;

// What service managers put into our environment for us alone.
bool IsOurs(std::string_view variable) {
  for (const std::string_view prefix : {"NOTIFY_SOCKET=", "WATCHDOG_", "LISTEN_"}) {
    if (variable.starts_with(prefix)) return true;
  }
  return false;
}

Result<pid_t> Start(const std::vector<std::string>& argv, int input, int output) {
  SpawnOptions options;
  options.argv = argv;
  options.environment.emplace();
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (!IsOurs(*variable)) options.environment->push_back(*variable);
  }
  options.input = input;
  options.output = output;
  // Processes that it starts end with it.
  options.group = SpawnOptions::Group::kOwn;
  Result<pid_t> pid = cachecore::Spawn(options);
  if (pid.ok()) return pid;
  return Status::FromErrno(pid.status().error(), "run " + argv[0] + " as user " +
                                                     std::to_string(geteuid()) +
                                                     " (--fetcher-user names another)");
}

// One program's time.
class Patience {
 public:
  Patience(std::string name, Duration limit, const Cancel& cancel)
      : name_(std::move(name)), limit_(limit), cancel_(cancel) {}

  // Waits until `fd` is readable or hung up.
  Status Await(int fd) const {
    const auto s = std::chrono::ceil<std::chrono::seconds>(limit_).count();
    while (true) {
      const Duration left = end_ - clock_.Now();
      if (left <= Duration::zero()) {
        return Status(ETIMEDOUT, name_ + " did not end within " + std::to_string(s) + " s");
      }
      pollfd fds[2] = {{fd, POLLIN, 0}, {cancel_.fd(), POLLIN, 0}};
      const auto ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
      if (poll(fds, 2, static_cast<int>(ms)) < 0 && errno != EINTR) {
        return Status::FromErrno(errno, "wait for " + name_);
      }
      if (cancel_.IsSet()) return Status(ECANCELED, name_ + " is not wanted any more");
      if (fds[0].revents != 0) return Status();
    }
  }
  const std::string& name() const { return name_; }

 private:
  const cachecore::Clock& clock_ = cachecore::Clock::Monotonic();
  const std::string name_;
  const Duration limit_;
  const Cancel& cancel_;
  const Duration end_ = clock_.Now() + limit_;
};

// Everything that comes from `fd` until its end.
Result<std::string> ReadAll(int fd, const Patience& patience) {
  std::string output;
  while (true) {
    RETURN_IF_ERROR(patience.Await(fd));
    char buffer[4096];
    const ssize_t got = read(fd, buffer, sizeof(buffer));
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got <= 0) return output;  // A reset is an end as well: its exit code will tell.
    output.append(buffer, static_cast<size_t>(got));
    explicit_bzero(buffer, sizeof(buffer));
    if (output.size() > kMaxOutput)
      return Status(E2BIG, patience.name() + " printed more than 64 KiB");
  }
}

// Waits for its end, brought about if that does not come by itself, and reaps it.
Status AwaitEnd(pid_t pid, const Patience& patience, bool is_wanted) {
  const UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  Status waited = is_wanted && pidfd.valid() ? patience.Await(pidfd.get()) : Status();
  // Not reaped yet, it keeps its group's number from being another's.
  if (!is_wanted || !waited.ok()) kill(-pid, SIGKILL);
  const int status = cachecore::ReapChild(pid);
  RETURN_IF_ERROR(std::move(waited));
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return Status();
  const std::string how = WIFEXITED(status)
                              ? " ended with exit code " + std::to_string(WEXITSTATUS(status))
                              : " was killed by signal " + std::to_string(WTERMSIG(status));
  return Status(ECHILD, patience.name() + how);
}

}  // namespace

Result<std::string> RunForOutput(const std::vector<std::string>& argv, const std::string& input,
                                 Duration limit, const Cancel& cancel) {
  // Pipes, as a shell would use: a socket can't be opened by its name, /dev/stdin or /dev/stdout.
  ASSIGN_OR_RETURN(Pipe in, Pipe::Make());
  ASSIGN_OR_RETURN(Pipe out, Pipe::Make());
  // While we hold both ends nothing can break the pipe; it takes what fits and does not block.
  fcntl(in.writer.get(), F_SETFL, O_NONBLOCK);
  if (write(in.writer.get(), input.data(), input.size()) != static_cast<ssize_t>(input.size())) {
    return Status(EMSGSIZE, "ask " + argv[0] + ": the question is too long");
  }
  in.writer.Reset();
  ASSIGN_OR_RETURN(const pid_t pid, Start(argv, in.reader.get(), out.writer.get()));
  in.reader.Reset();
  out.writer.Reset();
  const Patience patience(argv[0], limit, cancel);
  Result<std::string> output = ReadAll(out.reader.get(), patience);
  const Status ended = AwaitEnd(pid, patience, output.ok());
  if (!output.ok() || ended.ok()) return output;
  explicit_bzero(output->data(), output->size());
  return ended;
}

}  // namespace fetcher
