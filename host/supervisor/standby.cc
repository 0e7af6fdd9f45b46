#include "host/supervisor/standby.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "host/supervisor/supervise_text.h"
#include "host/supervisor/supervise_time.h"

namespace host {

using cachecore::Duration;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

namespace {

constexpr std::chrono::milliseconds kLongestPause{100};

}  // namespace

Result<std::unique_ptr<Standby>> Standby::Create(const RestartPolicy& restart, StandbyHooks hooks) {
  // A copy does nothing that could make it die again and again: it is replaced soon each time.
  RestartPolicy policy = restart;
  policy.backoff_max = std::min(policy.backoff_max, kLongestPause);
  std::unique_ptr<Standby> standby(new Standby(policy, std::move(hooks)));
  standby->deadline_ = kNever;
  if (!standby->MakeToken()) return Status::FromErrno(errno, "make a pipe for the standby");
  return standby;
}

// Read by the one copy that takes over.
bool Standby::MakeToken() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return false;
  token_out_.Reset(ends[0]);
  token_in_.Reset(ends[1]);
  const char token = 0;
  return write(token_in_.get(), &token, sizeof(token)) == sizeof(token);
}

bool Standby::Renew() {
  deadline_ = kNever;
  int ends[2];
  pid_t pid = -1;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0) {
    pid = fork();
    if (pid == 0) {
      close(ends[0]);
      WaitForTheEnd(ends[1]);
      return true;
    }
    close(ends[1]);
    if (pid < 0) close(ends[0]);
  }
  if (pid < 0) {
    deadline_ = MonotonicNow() + backoff_.DelayAfter(Duration::zero());
    return false;
  }
  if (pid_ != 0) kill(pid_, SIGKILL);  // Not reaped yet: the number is still its own.
  pid_ = pid;
  socket_.Reset(ends[0]);
  started_at_ = MonotonicNow();
  return false;
}

// Returns once this process is the supervisor.
void Standby::WaitForTheEnd(int supervisor) {
  socket_.Reset();  // An earlier copy waits for that end to be closed everywhere.
  pid_ = 0;
  if (hooks_.on_wait) hooks_.on_wait();
  char byte;
  while (read(supervisor, &byte, sizeof(byte)) < 0 && errno == EINTR) {
  }
  close(supervisor);
  if (read(token_out_.get(), &byte, sizeof(byte)) != sizeof(byte)) _exit(0);
  if (hooks_.on_take_over) hooks_.on_take_over();
  if (!MakeToken()) Say("cannot make a pipe for the standby; the next one will not take over");
}

void Standby::End() {
  if (pid_ == 0) return;
  kill(pid_, SIGKILL);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
  pid_ = 0;
  socket_.Reset();
}

void Standby::Stop() {
  wanted_ = false;
  deadline_ = kNever;
  if (pid_ != 0) kill(pid_, SIGKILL);
}

bool Standby::OnExit(pid_t pid) {
  if (pid_ == 0 || pid != pid_) return false;
  pid_ = 0;
  socket_.Reset();
  if (wanted_) deadline_ = MonotonicNow() + backoff_.DelayAfter(MonotonicNow() - started_at_);
  return true;
}

}  // namespace host
