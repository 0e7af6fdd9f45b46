#include "fusefs/device/device_session.h"

#include <glog/logging.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <span>
#include <utility>

#include "cachecore/base/fault_point.h"
#include "cachecore/base/unix_socket.h"

namespace fusefs {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
namespace wire = cachecore::wire;

namespace {

// A peer that never stops talking must not look like a thread that is stuck.
constexpr int kPacketsATurn = 256;

// 1: sent.  0: not now.  -1: the connection is over.
int Send(int socket, const std::string& bytes, int fd) {
  if (cachecore::SendWithDescriptor(socket, bytes, fd, MSG_DONTWAIT) >= 0) return 1;
  // ETOOMANYREFS: too many descriptors are on their way in sockets; the peer must take some.
  return errno == EAGAIN || errno == ENOBUFS || errno == ETOOMANYREFS ? 0 : -1;
}

// As recv(2) with MSG_DONTWAIT; *pid is the sender's, *file what has come with the packet.
ssize_t ReceivePacket(int socket, std::span<char> buffer, pid_t* pid, UniqueFd* file) {
  // MSG_TRUNC: the real length, so that a packet that is too long is known for what it is.
  const cachecore::ReceivedPacket packet =
      cachecore::ReceiveWithDescriptors(socket, buffer, {file, 1}, MSG_DONTWAIT | MSG_TRUNC);
  if (packet.sender) *pid = packet.sender->pid;
  return packet.size;
}

// The token of a packet whose first command is `resume`.
std::optional<uint32_t> ResumeToken(std::string_view packet) {
  if (!packet.starts_with("resume ")) return std::nullopt;
  const Result<wire::Command> command = wire::ParseCommand(packet.substr(0, packet.find('\n')));
  const auto* resume = command.ok() ? std::get_if<wire::ResumeCommand>(&*command) : nullptr;
  return resume != nullptr ? std::optional(resume->token) : std::nullopt;
}

}  // namespace

void RefuseFetcher(int socket, int error) {
  wire::HelloMessage hello;
  hello.status = -error;
  Send(socket, wire::EncodeMessage(hello, 0), -1);
}

DeviceSession::DeviceSession(cachecore::UniqueFd socket, cachecore::DevicePort* port,
                             OnResumed on_resumed)
    : socket_(std::move(socket)),
      port_(port),
      on_resumed_(std::move(on_resumed)),
      buffer_(wire::kMaxCommandPacket + 1) {}

short DeviceSession::wanted_events() const { return outgoing_.empty() ? POLLIN : POLLOUT; }

bool DeviceSession::HungUp() const {
  pollfd peer = {socket_.get(), 0, 0};
  return poll(&peer, 1, 0) == 1 && (peer.revents & (POLLHUP | POLLERR)) != 0;
}

void DeviceSession::Hello(cachecore::Generation generation) {
  wire::HelloMessage hello;
  hello.caps = offered_caps();
  hello.generation = generation;
  outgoing_.push_back({wire::EncodeMessage(hello, 0), {}});
}

bool DeviceSession::Serve(short events) {
  Flush();
  if ((peer_gone_ || (events & (POLLIN | POLLHUP | POLLERR)) != 0) && outgoing_.empty() &&
      !Receive()) {
    return false;
  }
  return Pump();
}

// Takes packets until there is none or an answer has to wait; or so many that the caller's loop is
// due.
bool DeviceSession::Receive() {
  for (int i = 0; i < kPacketsATurn && outgoing_.empty(); ++i) {
    pid_t pid = 0;
    UniqueFd file;
    const ssize_t got = ReceivePacket(socket_.get(), buffer_, &pid, &file);
    if (got < 0 && errno == ECONNRESET && !peer_gone_) {
      peer_gone_ = true;  // It died with messages unread.  Told once, before what it had sent.
      continue;
    }
    if (got < 0 && errno == EAGAIN) return !peer_gone_;
    if (got <= 0) return false;  // An empty packet looks like the end of the connection, and is.
    cachecore::FaultPoint(cachecore::Fault::kCommandsReceived);
    const auto size = static_cast<size_t>(got);
    const bool fits = size <= wire::kMaxCommandPacket;
    const std::string_view packet(buffer_.data(), fits ? size : 0);
    if (const auto token = ResumeToken(packet)) {
      if (!Resume(*token, pid)) return false;
      continue;
    }
    wire::ReplyMessage reply;
    reply.packet = packets_++;
    reply.results = fits ? Handle(packet, std::move(file)) : std::vector<int32_t>{-E2BIG};
    cachecore::FaultPoint(cachecore::Fault::kCommandsDone);
    outgoing_.push_back({wire::EncodeMessage(reply, caps_), {}});
    Flush();
  }
  return true;
}

// From here on the connection is as one that was just made, but for nothing having been failed.
bool DeviceSession::Resume(uint32_t token, pid_t pid) {
  caps_ = 0;
  credits_ = 0;
  packets_ = 0;
  wire::HelloMessage hello;
  hello.caps = offered_caps();
  hello.resumed = token;
  const Result<cachecore::Generation> generation = port_->Resume();
  if (generation.ok()) {
    hello.generation = *generation;
    on_resumed_(pid, *generation);
  } else {
    LOG(ERROR) << "a fetcher cannot resume: " << generation.status().message();
    hello.status = -generation.status().error();
  }
  outgoing_.push_back({wire::EncodeMessage(hello, 0), {}});
  Flush();
  return generation.ok();
}

// The commands that concern the connection itself are carried out here, the others by the Cache.
Result<wire::Command> DeviceSession::Admit(std::string_view line, bool* done_here) {
  Result<wire::Command> command = wire::ParseCommand(line);
  if (!command.ok()) return command;
  if (const auto* caps = std::get_if<wire::CapsCommand>(&*command)) {
    if ((caps->caps & ~offered_caps()) != 0) return Status(EINVAL, "unknown capability");
    caps_ = caps->caps;
    *done_here = true;
  } else if (const auto* credit = std::get_if<wire::CreditCommand>(&*command)) {
    if (credit->count > wire::kMaxCredits - credits_) return Status(EINVAL, "too many credits");
    credits_ += credit->count;
    *done_here = true;
  } else if (std::holds_alternative<wire::ResumeCommand>(*command)) {
    return Status(EINVAL, "resume comes first in its packet");
  } else if (std::holds_alternative<wire::AttrCommand>(*command) && (caps_ & wire::kCapAttr) == 0) {
    return Status(EOPNOTSUPP, "attr was not chosen with caps");
  } else if (std::holds_alternative<wire::VerityCommand>(*command) &&
             (caps_ & wire::kCapVerity) == 0) {
    return Status(EOPNOTSUPP, "verity was not chosen with caps");
  } else if (std::holds_alternative<wire::FactsCommand>(*command) &&
             (caps_ & wire::kCapFacts) == 0) {
    return Status(EOPNOTSUPP, "facts was not chosen with caps");
  } else if (std::holds_alternative<wire::CountCommand>(*command) &&
             (caps_ & wire::kCapCount) == 0) {
    return Status(EOPNOTSUPP, "count was not chosen with caps");
  } else if ((std::holds_alternative<wire::FullCommand>(*command) ||
              std::holds_alternative<wire::ThroughCommand>(*command)) &&
             (caps_ & wire::kCapThrough) == 0) {
    return Status(EOPNOTSUPP, "through was not chosen with caps");
  }
  return command;
}

uint32_t DeviceSession::offered_caps() const {
  return port_->serves_through() ? wire::kAllCaps : wire::kAllCaps & ~wire::kCapThrough;
}

std::vector<int32_t> DeviceSession::Handle(std::string_view packet, UniqueFd file) {
  const Result<std::vector<std::string_view>> lines = wire::SplitPacket(packet);
  if (!lines.ok()) return {-lines.status().error()};
  // Without kCapBatch the first newline ends the packet, as the kernel has it.
  const size_t count = (caps_ & wire::kCapBatch) != 0 ? lines->size() : 1;
  std::vector<int32_t> results;
  std::vector<Result<wire::Command>> commands;
  const auto flush = [&] {
    if (commands.empty()) return;
    const std::vector<int32_t> some = port_->Execute(commands);
    results.insert(results.end(), some.begin(), some.end());
    commands.clear();
  };
  for (size_t i = 0; i < count; ++i) {
    bool done_here = false;
    Result<wire::Command> command = Admit((*lines)[i], &done_here);
    const auto* through = command.ok() ? std::get_if<wire::ThroughCommand>(&*command) : nullptr;
    if (done_here || through != nullptr) {
      flush();
      results.push_back(done_here ? 0 : port_->Through(*through, std::exchange(file, {})));
    } else {
      commands.push_back(std::move(command));
    }
  }
  flush();
  return results;
}

void DeviceSession::Flush() {
  while (!outgoing_.empty() && !peer_gone_) {
    const int sent = Send(socket_.get(), outgoing_.front().bytes, outgoing_.front().fd.get());
    if (sent == 0) return;
    if (sent < 0) peer_gone_ = true;
    if (sent > 0) outgoing_.pop_front();
  }
  if (peer_gone_) outgoing_.clear();
}

bool DeviceSession::Pump() {
  while (credits_ > 0 && outgoing_.empty() && !peer_gone_) {
    std::optional<cachecore::OutgoingMessage> message = port_->NextMessage();
    if (!message) return true;
    --credits_;
    outgoing_.push_back(
        {wire::EncodeMessage(message->message, caps_), std::move(message->data_fd)});
    Flush();
    cachecore::FaultPoint(cachecore::Fault::kMessageSent);
  }
  // What it may still have said is read before it is given up.
  return !peer_gone_ || Receive();
}

}  // namespace fusefs
