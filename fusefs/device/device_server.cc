#include "fusefs/device/device_server.h"

#include <glog/logging.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <utility>

#include "cachecore/system/unix_listener.h"

namespace fusefs {

using cachecore::MayConnect;
using cachecore::MutexLock;
using cachecore::PeerOf;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

namespace {

// How many connections are accepted before the session is looked after again: a crowd at the door
// must not starve the fetcher that is attached.
constexpr int kAcceptsATurn = 64;
// The pause after a failed accept.
constexpr int kAcceptPauseMs = 100;

}  // namespace

Result<std::unique_ptr<DeviceServer>> DeviceServer::Make(UniqueFd listener, uid_t fetcher_uid) {
  UniqueFd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) return Status::FromErrno(errno, "eventfd");
  return std::unique_ptr<DeviceServer>(
      new DeviceServer(std::move(listener), fetcher_uid, std::move(wake)));
}

DeviceServer::DeviceServer(UniqueFd listener, uid_t fetcher_uid, UniqueFd wake)
    : listener_(std::move(listener)), fetcher_uid_(fetcher_uid), wake_(std::move(wake)) {}

DeviceServer::~DeviceServer() { Stop(); }

void DeviceServer::Start(cachecore::Cache* cache, bool refuses) {
  cache_ = cache;
  refuses_ = refuses;
  thread_ = std::thread([this] { Run(); });
}

void DeviceServer::Wake() {
  const uint64_t one = 1;
  // EAGAIN: the counter is full, so the thread will wake anyway.
  if (write(wake_.get(), &one, sizeof(one)) < 0 && errno != EAGAIN) PLOG(ERROR) << "eventfd";
}

void DeviceServer::Stop() {
  if (!thread_.joinable()) return;
  stopping_ = true;
  Wake();
  thread_.join();
}

std::optional<FetcherInfo> DeviceServer::fetcher() {
  MutexLock lock(&mu_);
  return fetcher_;
}

void DeviceServer::Run() {
  while (!stopping_) {
    pollfd fds[4] = {{wake_.get(), POLLIN, 0},
                     {listener_.get(), POLLIN, 0},
                     {-1, 0, 0},
                     {fetcher_process_.get(), POLLIN, 0}};
    if (session_) fds[2] = {session_->fd(), session_->wanted_events(), 0};
    const bool pausing = accept_paused_until_ > cachecore::Clock::Monotonic().Now();
    if (pausing) fds[1].fd = -1;
    if (poll(fds, 4, pausing ? kAcceptPauseMs : -1) < 0) {
      PCHECK(errno == EINTR);
      continue;
    }
    mark_.Begin();
    if (fds[0].revents != 0) {
      uint64_t count;
      (void)!read(wake_.get(), &count, sizeof(count));
    }
    // First, since what is served now may be a resume, and name a living one.
    if (fds[3].revents != 0) NoteDeath();
    // Then the session, so that a hang-up is seen before the successor that follows it.
    if (session_ && !session_->Serve(fds[2].revents)) Detach();
    if (fds[1].revents != 0) Accept();
    mark_.End();
  }
  // Our own end is no detach: with the policy `fail` it would fail reads that the next daemon
  // answers.
  session_.reset();
}

void DeviceServer::Accept() {
  for (int i = 0; i < kAcceptsATurn; ++i) {
    UniqueFd socket(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket.valid()) {
      if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
        // Out of descriptors, say: the peer stays in line, and must not keep us busy meanwhile.
        PLOG_EVERY_N(ERROR, 100) << "accept";
        accept_paused_until_ =
            cachecore::Clock::Monotonic().Now() + std::chrono::milliseconds(kAcceptPauseMs);
      }
      return;
    }
    const Result<ucred> peer = PeerOf(socket.get());
    if (!peer.ok() || !MayConnect(*peer, fetcher_uid_)) {
      cache_->log().Warn("a process of uid " + (peer.ok() ? std::to_string(peer->uid) : "?") +
                         " may not attach as fetcher: refused");
      RefuseFetcher(socket.get(), EPERM);
      continue;
    }
    // It may have hung up since it was last looked at, and this be its successor.
    if (session_ && session_->HungUp()) {
      while (session_->Serve(POLLIN)) continue;  // What it had said before that counts.
      Detach();
    }
    if (session_ || refuses_) {
      RefuseFetcher(socket.get(), EBUSY);
      continue;
    }
    const Result<cachecore::Generation> generation = cache_->device().Attach();
    if (!generation.ok()) {
      LOG(ERROR) << "a fetcher cannot attach: " << generation.status().message();
      RefuseFetcher(socket.get(), generation.status().error());
      continue;
    }
    // With each packet the kernel is to say who sent it: the connection may have a successor.
    const int on = 1;
    setsockopt(socket.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
    Introduce(peer->pid, *generation);
    LOG(INFO) << "fetcher attached: pid " << peer->pid << ", generation " << generation->value;
    session_.emplace(
        std::move(socket), &cache_->device(), [this](pid_t pid, cachecore::Generation resumed) {
          LOG(INFO) << "fetcher resumed: pid " << pid << ", generation " << resumed.value;
          Introduce(pid, resumed);
        });
    session_->Hello(*generation);
    if (!session_->Serve(0)) Detach();
  }
}

void DeviceServer::Introduce(pid_t pid, cachecore::Generation generation) {
  {
    MutexLock lock(&mu_);
    fetcher_ = FetcherInfo{pid, static_cast<int64_t>(time(nullptr)), generation};
  }
  // 0: it lives where we can't see it.
  fetcher_process_.Reset(pid > 0 ? static_cast<int>(syscall(SYS_pidfd_open, pid, 0)) : -1);
  if (pid > 0 && !fetcher_process_.valid() && errno == ESRCH) NoteDeath();
}

// Its connection, if a service manager keeps it, continues with all requests on it.
void DeviceServer::NoteDeath() {
  fetcher_process_.Reset();
  cache_->device().NoteDeath();
  MutexLock lock(&mu_);
  if (!fetcher_) return;
  LOG(INFO) << "fetcher " << fetcher_->pid << " has died";
  fetcher_.reset();
}

void DeviceServer::Detach() {
  session_.reset();
  fetcher_process_.Reset();
  {
    MutexLock lock(&mu_);
    fetcher_.reset();
  }
  LOG(INFO) << "fetcher detached";
  cache_->device().Detach();
}

}  // namespace fusefs
