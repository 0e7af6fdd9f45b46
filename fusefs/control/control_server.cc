#include "fusefs/control/control_server.h"

#include <glog/logging.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <thread>
#include <utility>

#include "cachecore/base/json_fields.h"
#include "cachecore/protocol/control_messages.h"
#include "cachecore/system/process_limits.h"
#include "cachecore/system/unix_listener.h"

namespace fusefs {

using cachecore::MayConnect;
using cachecore::MutexLock;
using cachecore::PeerOf;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

namespace {

constexpr size_t kMaxRequest = 64 << 10;
constexpr int kControlPauseMs = 100;   // When a connection cannot be accepted.
constexpr timeval kPatience = {5, 0};  // For a peer that connects and says or takes nothing.

bool SendAll(int socket, std::string_view text) {
  while (!text.empty()) {
    const ssize_t sent = send(socket, text.data(), text.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    text.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

void Refuse(int socket, const Status& why) {
  SendAll(socket, cachecore::JsonText(cachecore::control::EncodeRefusal(why)) + "\n");
}

// One line, or nothing if it is too long or does not come.
std::string ReceiveLine(int socket) {
  std::string line;
  char part[4096];
  while (line.size() < kMaxRequest) {
    const ssize_t got = recv(socket, part, sizeof(part), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return "";
    line.append(part, static_cast<size_t>(got));
    if (const size_t end = line.find('\n'); end != std::string::npos) return line.substr(0, end);
  }
  return "";
}

}  // namespace

Result<std::unique_ptr<ControlServer>> ControlServer::Make(UniqueFd listener) {
  UniqueFd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) return Status::FromErrno(errno, "eventfd");
  return std::unique_ptr<ControlServer>(new ControlServer(std::move(listener), std::move(wake)));
}

ControlServer::ControlServer(UniqueFd listener, UniqueFd wake)
    : listener_(std::move(listener)), wake_(std::move(wake)) {}

ControlServer::~ControlServer() { Stop(); }

void ControlServer::Start(Handler handler) {
  handler_ = std::move(handler);
  thread_ = std::thread([this] { Run(); });
}

void ControlServer::Stop() {
  if (!thread_.joinable()) return;
  stopping_ = true;
  const uint64_t one = 1;
  PCHECK(write(wake_.get(), &one, sizeof(one)) == sizeof(one));
  thread_.join();
  MutexLock lock(&mu_);
  while (connections_ > 0) left_.Wait(&mu_);
}

void ControlServer::Run() {
  while (!stopping_) {
    pollfd fds[2] = {{wake_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
    if (poll(fds, 2, -1) < 0) continue;
    if (fds[1].revents == 0) continue;
    UniqueFd socket(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!socket.valid()) {
      // Out of descriptors, say: the peer stays in line, and must not keep us busy meanwhile.
      if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
        PLOG_EVERY_N(ERROR, 100) << "accept";
        pollfd stopped = {wake_.get(), POLLIN, 0};
        (void)poll(&stopped, 1, kControlPauseMs);
      }
      continue;
    }
    const Result<ucred> peer = PeerOf(socket.get());
    if (!peer.ok() || !MayConnect(*peer, geteuid())) {
      Refuse(socket.get(), Status(EPERM, "not your daemon"));
      continue;
    }
    {
      MutexLock lock(&mu_);
      if (connections_ >= kMaxConnections) {
        Refuse(socket.get(), Status(EBUSY, "too many at once"));
        continue;
      }
      ++connections_;
    }
    const auto taken = std::make_shared<UniqueFd>(std::move(socket));
    Result<std::thread> server = cachecore::StartThread("a control connection", [this, taken] {
      Serve(std::move(*taken));
      Leave();
    });
    if (server.ok()) {
      server->detach();  // Stop waits for connections_ to come down to 0.
      continue;
    }
    LOG_EVERY_N(ERROR, 100) << server.status().message();
    Refuse(taken->get(), server.status());
    Leave();
  }
}

void ControlServer::Leave() {
  MutexLock lock(&mu_);
  --connections_;
  left_.NotifyAll();
}

void ControlServer::Serve(UniqueFd socket) {
  setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof(kPatience));
  setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &kPatience, sizeof(kPatience));
  const std::string request = ReceiveLine(socket.get());
  SendAll(socket.get(), handler_(request, socket.get()) + "\n");
}

}  // namespace fusefs
