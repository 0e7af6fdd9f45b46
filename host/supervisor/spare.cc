#include "host/supervisor/spare.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "cachecore/base/unix_socket.h"
#include "host/notify/notify_socket.h"
#include "host/supervisor/supervise_time.h"

namespace host {
namespace {

using cachecore::Duration;
using cachecore::Result;
using cachecore::UniqueFd;

constexpr std::string_view kSocketName = "spare";

}  // namespace

Result<std::unique_ptr<Spare>> Spare::Create(LaunchSpec launch, int first_fd,
                                             const RestartPolicy& restart) {
  std::unique_ptr<Spare> spare(new Spare(restart));
  spare->fds_max_ = std::min(launch.fds_max, kFdsPerMessageMax);
  spare->names_.resize(spare->fds_max_ * (kFdNameBytesMax + 1) + 1);
  launch.pid_path.clear();
  launch.fds_max = 1;
  ASSIGN_OR_RETURN(spare->launcher_, ChildLauncher::Create(launch));
  ASSIGN_OR_RETURN(spare->passed_, StoredDescriptors::Create(1, first_fd));
  return spare;
}

void Spare::WantAt(Duration time) {
  wanted_ = true;
  if (pid_ == 0) deadline_ = time;
}

void Spare::OnDeadline() {
  deadline_ = kNever;
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0 ||
      stat(launcher_->program().c_str(), &program_) != 0) {
    deadline_ = MonotonicNow() + backoff_.DelayAfter(Duration::zero());
    return;
  }
  socket_.Reset(ends[0]);
  passed_->Add(UniqueFd(ends[1]), kSocketName, /*poll=*/false);
  started_at_ = MonotonicNow();
  const pid_t pid = launcher_->Start(*passed_);
  passed_->Clear();  // The only other end is the spare's: its death ends the socket.
  if (pid > 0) {
    pid_ = pid;
    return;
  }
  socket_.Reset();
  deadline_ = MonotonicNow() + backoff_.DelayAfter(Duration::zero());
}

bool Spare::OnInput() {
  if (poll_fd() < 0) return false;
  char byte;
  const ssize_t size = recv(socket_.get(), &byte, sizeof(byte), MSG_DONTWAIT);
  warm_ = size == 1;
  if (size == 0)
    socket_.Reset();  // Its death is told by a signal too, but it may only have closed.
  return warm_;
}

pid_t Spare::Fit() {
  if (pid_ == 0 || !warm_) return 0;
  struct stat now;
  const bool same = stat(launcher_->program().c_str(), &now) == 0 &&
                    now.st_dev == program_.st_dev && now.st_ino == program_.st_ino &&
                    now.st_ctim.tv_sec == program_.st_ctim.tv_sec &&
                    now.st_ctim.tv_nsec == program_.st_ctim.tv_nsec;
  if (!same) Kill();
  return same ? pid_ : 0;
}

bool Spare::HandOver(const StoredDescriptors& store) {
  char* out = names_.data();
  // The kernel would split what is more: such a service starts without its spare.
  bool sent = store.size() <= fds_max_;
  if (sent) {
    std::array<int, kFdsPerMessageMax> fds;
    for (size_t i = 0; i < store.size(); ++i) {
      fds[i] = store.fd(i);
      out = std::copy(store.name(i).begin(), store.name(i).end(), out);
      *out++ = ':';
    }
    *out++ = '\n';  // An empty packet would look like the socket's end.
    const std::string_view names(names_.data(), static_cast<size_t>(out - names_.data()));
    sent = cachecore::SendWithDescriptors(socket_.get(), names, {fds.data(), store.size()},
                                          MSG_DONTWAIT) >= 0;
  }
  if (!sent) {
    Kill();
    return false;
  }
  socket_.Reset();
  pid_ = 0;
  wanted_ = false;
  warm_ = false;
  return true;
}

void Spare::Stop() {
  wanted_ = false;
  deadline_ = kNever;
  Kill();
}

void Spare::Abandon() {
  socket_.Reset();
  pid_ = 0;
  warm_ = false;
  wanted_ = false;
  deadline_ = kNever;
}

void Spare::Kill() {
  socket_.Reset();
  warm_ = false;
  if (pid_ != 0) kill(pid_, SIGKILL);
}

bool Spare::OnExit(pid_t pid) {
  if (pid_ == 0 || pid != pid_) return false;
  pid_ = 0;
  socket_.Reset();
  // One that never got so far is the same as one that could not be started.
  const Duration lived =
      std::exchange(warm_, false) ? MonotonicNow() - started_at_ : Duration::zero();
  if (wanted_) deadline_ = MonotonicNow() + backoff_.DelayAfter(lived);
  return true;
}

}  // namespace host
