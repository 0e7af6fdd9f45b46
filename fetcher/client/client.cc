#include "fetcher/client/client.h"

#include <glog/logging.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <span>
#include <utility>

#include "cachecore/base/fault_point.h"
#include "cachecore/base/unix_socket.h"

namespace fetcher {
namespace wire = cachecore::wire;

namespace {

constexpr int kMessagesPerTurn = 256;  // Leaves the caller's loop its turn under a flood.

// Receives one packet.  EAGAIN when there is none, ECONNRESET at the end.
Result<cachecore::ReceivedPacket> Receive(int socket, std::span<char> buffer, UniqueFd* fd) {
  const cachecore::ReceivedPacket received =
      cachecore::ReceiveWithDescriptors(socket, buffer, {fd, 1}, MSG_DONTWAIT);
  if (received.size < 0) return Status::FromErrno(errno, "receive from holdfastd");
  if (received.size == 0) return Status(ECONNRESET, "holdfastd has closed the connection");
  return received;
}

}  // namespace

Result<std::unique_ptr<DeviceClient>> DeviceClient::Connect(const std::string& path,
                                                            uint32_t credits,
                                                            const Waiting& waiting) {
  ASSIGN_OR_RETURN(const sockaddr_un address, cachecore::UnixAddress(path));
  UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return Status::FromErrno(errno, "socket");
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    // A full backlog says EAGAIN here; to a caller it is one more "not now".
    return Status::FromErrno(errno == EAGAIN ? ECONNREFUSED : errno, "connect to " + path);
  }
  std::unique_ptr<DeviceClient> client(new DeviceClient(std::move(fd)));
  RETURN_IF_ERROR(client->AwaitHello(0, kHelloTimeout, waiting).WithContext(path));
  RETURN_IF_ERROR(client->Introduce(credits));
  return client;
}

Result<std::unique_ptr<DeviceClient>> DeviceClient::Resume(UniqueFd connection, uint32_t credits,
                                                           const Waiting& waiting) {
  std::unique_ptr<DeviceClient> client(new DeviceClient(std::move(connection)));
  // Random, so that the mark for a predecessor that died in the middle of this differs from this
  // client's.
  const uint32_t token = std::max(1u, std::random_device()());
  RETURN_IF_ERROR(client->AwaitHello(token, Duration::max(), waiting).WithContext("resuming"));
  RETURN_IF_ERROR(client->Introduce(credits));
  return client;
}

// Switches on what both sides know and asks for what is pending.
Status DeviceClient::Introduce(uint32_t credits) {
  CHECK(credits > 0 && credits <= wire::kMaxCredits);
  credits_ = credits;
  // Alone in its packet: until it has been carried out one command is all that a packet may hold.
  const uint32_t wanted = std::exchange(caps_, 0);
  Queue({wire::CapsCommand{wanted}});
  Seal();
  caps_ = wanted;
  Queue({wire::RestoreCommand{}});
  Queue({wire::CreditCommand{credits}});
  RETURN_IF_ERROR(Flush());
  cachecore::FaultPoint(cachecore::Fault::kAttached);
  return Status();
}

// With a token: asks for the HELLO that bears it, and drops everything that comes before.
Status DeviceClient::AwaitHello(uint32_t token, Duration patience, const Waiting& waiting) {
  const auto start = std::chrono::steady_clock::now();
  const std::string request = wire::FormatCommand(wire::ResumeCommand{token});
  bool asked = token == 0;
  char buffer[wire::kMaxMessageSize];
  while (true) {
    if (waiting && !waiting()) return Status(ECANCELED, "told to stop");
    if (std::chrono::steady_clock::now() - start > patience) {
      return Status(ETIMEDOUT, "the daemon has not said HELLO within 5 s");
    }
    pollfd peer = {socket_.get(), static_cast<short>(asked ? POLLIN : POLLIN | POLLOUT), 0};
    if (poll(&peer, 1, kWaitingInterval.count()) < 0 && errno != EINTR) {
      return Status::FromErrno(errno, "wait for the daemon's HELLO");
    }
    if (!asked) {
      asked = send(socket_.get(), request.data(), request.size(), MSG_DONTWAIT | MSG_NOSIGNAL) > 0;
      if (!asked && errno != EAGAIN && errno != ENOBUFS && errno != EINTR) {
        return Status::FromErrno(errno, "send to holdfastd");
      }
    }
    UniqueFd fd;
    const auto received = Receive(socket_.get(), buffer, &fd);
    if (received.status().error() == EAGAIN) continue;
    RETURN_IF_ERROR(received.status());
    auto message = wire::DecodeMessage({buffer, static_cast<size_t>(received->size)}, 0);
    const auto* hello = message.ok() ? std::get_if<wire::HelloMessage>(&*message) : nullptr;
    if (hello != nullptr && hello->resumed == token) return Greeted(*hello);
    if (token == 0) {
      RETURN_IF_ERROR(message.status());
      return Status(EBADMSG, "the first message is not HELLO");
    }
  }
}

Status DeviceClient::Greeted(const wire::HelloMessage& hello) {
  if (hello.status == -EBUSY) return Status(EBUSY, "another fetcher is attached");
  if (hello.status == -EPERM) return Status(EPERM, "the daemon does not admit this user");
  if (hello.status != 0) return Status::FromErrno(-hello.status, "the daemon refused");
  if (hello.version != wire::kProtocolVersion) {
    return Status(EPROTONOSUPPORT, "the daemon speaks protocol version " +
                                       std::to_string(hello.version) + ", this fetcher 1");
  }
  caps_ = hello.caps & wire::kAllCaps;
  generation_ = hello.generation;
  return Status();
}

Status DeviceClient::ReadMessages(DeviceHandler* handler) {
  char buffer[wire::kMaxMessageSize];
  for (int i = 0; i < kMessagesPerTurn; ++i) {
    UniqueFd fd;
    auto received = Receive(socket_.get(), buffer, &fd);
    if (!received.ok()) {
      if (received.status().error() == EAGAIN) break;
      return std::move(received).status();
    }
    cachecore::FaultPoint(cachecore::Fault::kMessageReceived);
    if ((received->flags & MSG_TRUNC) != 0 || received->has_more) {
      return Status(EBADMSG, "holdfastd sent an oversized message");
    }
    // The kernel could not give us a descriptor that was sent.
    const bool fd_lost = (received->flags & MSG_CTRUNC) != 0;
    RETURN_IF_ERROR(
        Dispatch({buffer, static_cast<size_t>(received->size)}, std::move(fd), fd_lost, handler));
  }
  GrantCredits();
  return Status();
}

Status DeviceClient::Dispatch(std::string_view bytes, UniqueFd fd, bool fd_lost,
                              DeviceHandler* handler) {
  ASSIGN_OR_RETURN(wire::Message message, wire::DecodeMessage(bytes, caps_));
  if (auto* reply = std::get_if<wire::ReplyMessage>(&message)) return HandleReply(*reply, handler);
  if (std::holds_alternative<wire::HelloMessage>(message)) {
    return Status(EBADMSG, "holdfastd said HELLO twice");
  }
  ++spent_;
  if (auto* open = std::get_if<wire::OpenMessage>(&message)) {
    unanswered_.insert_or_assign(open->msg_id, open->object_id);
    if (!fd.valid() && !fd_lost) return Status(EBADMSG, "holdfastd sent an OPEN without its file");
    if (!fd.valid()) {
      CopenError(open->msg_id, EMFILE, "the fetcher is out of file descriptors");
      return Status();
    }
    handler->OnOpen({open->msg_id, open->object_id, std::move(open->volume_key),
                     std::move(open->cookie_key), std::move(open->attr), std::move(fd),
                     open->is_check});
  } else if (fd.valid()) {
    return Status(EBADMSG, "holdfastd sent a file with a message that takes none");
  } else if (const auto* read = std::get_if<wire::ReadMessage>(&message)) {
    unanswered_.insert_or_assign(read->msg_id, read->object_id);
    if (read->is_ahead) {
      handler->OnReadAhead(read->msg_id, read->object_id, read->range);
    } else {
      handler->OnRead(read->msg_id, read->object_id, read->range);
    }
  } else {
    const ObjectId object = std::get<wire::CloseMessage>(message).object_id;
    SettleAll(object);
    handler->OnClose(object);
  }
  return Status();
}

Status DeviceClient::HandleReply(const wire::ReplyMessage& reply, DeviceHandler* handler) {
  if (sent_.empty() || reply.packet != next_reply_ ||
      reply.results.size() != sent_.front().commands.size()) {
    return Status(EBADMSG, "holdfastd answered a packet that it was not sent");
  }
  ++next_reply_;
  const Packet packet = std::move(sent_.front());
  sent_.pop_front();
  for (size_t i = 0; i < reply.results.size(); ++i) {
    if (std::holds_alternative<wire::ThroughCommand>(packet.commands[i])) --throughs_;
    if (reply.results[i] == 0) continue;
    // The request that it speaks of has been withdrawn.
    const auto* cause = std::get_if<wire::CauseCommand>(&packet.commands[i]);
    if (cause != nullptr) Settled(cause->msg_id);
    handler->OnRejected(packet.commands[i], -reply.results[i]);
  }
  return Status();
}

void DeviceClient::Copen(MsgId open, uint64_t size_bytes) {
  Settled(open);
  Queue({wire::CopenCommand{open, static_cast<int64_t>(size_bytes), 0}});
}

void DeviceClient::CopenError(MsgId open, int error, const std::string& cause) {
  Settled(open);
  Queue({wire::CauseCommand{open, cause}, wire::CopenCommand{open, 0, error}});
}

void DeviceClient::Filled(ObjectId object, ByteRange range) {
  Queue({wire::FilledCommand{object, range}});
}

void DeviceClient::Complete(ObjectId object, MsgId read) {
  Settled(read);
  Queue({wire::CreadCommand{object, read, 0}});
}

void DeviceClient::Fail(ObjectId object, MsgId read, int error, const std::string& cause) {
  Settled(read);
  Queue({wire::CauseCommand{read, cause}, wire::CreadCommand{object, read, error}});
}

void DeviceClient::SetAttr(ObjectId object, const std::string& attr) {
  CHECK_LE(attr.size(), wire::kMaxAttrSize);
  if (caps_ & wire::kCapAttr) Queue({wire::AttrCommand{object, attr}});
}

void DeviceClient::SetVerity(ObjectId object, const cachecore::Digest& digest) {
  Queue({wire::VerityCommand{object, digest}});
}

void DeviceClient::SetFacts(ObjectId object, const cachecore::ObjectFacts& facts) {
  if (caps_ & wire::kCapFacts) Queue({wire::FactsCommand{object, facts}});
}

void DeviceClient::Full(ObjectId object) { Queue({wire::FullCommand{object}}); }

void DeviceClient::Through(ObjectId object, MsgId read, ByteRange range, UniqueFd file) {
  Settled(read);
  ++throughs_;
  Seal();  // The descriptor is the packet's, so the packet is this command's.
  Queue({wire::ThroughCommand{object, read, range}});
  open_.file = std::move(file);
  Seal();
}

void DeviceClient::Count(const wire::CountCommand& count) { Queue({count}); }

void DeviceClient::Cause(MsgId request, const std::string& text) {
  Queue({wire::CauseCommand{request, text}});
}

void DeviceClient::Close(ObjectId object) {
  SettleAll(object);
  Queue({wire::CloseCommand{object}});
}

void DeviceClient::Restore() { Queue({wire::RestoreCommand{}}); }

void DeviceClient::GrantCredits() {
  if (spent_ < std::max(1u, credits_ / 4) || unanswered_.size() >= kMaxUnanswered) return;
  Queue({wire::CreditCommand{std::exchange(spent_, 0)}});
}

void DeviceClient::Queue(std::vector<wire::Command> group) {
  std::string text;
  for (const wire::Command& command : group) text += wire::FormatCommand(command) + '\n';
  const bool batch = (caps_ & wire::kCapBatch) != 0;
  if (!batch && group.size() > 1) {
    for (wire::Command& command : group) Queue({std::move(command)});
    return;
  }
  if (!batch || open_.text.size() + text.size() > wire::kMaxCommandPacket ||
      open_.commands.size() + group.size() > wire::kMaxCommandsPerPacket) {
    Seal();
  }
  open_.text += text;
  std::move(group.begin(), group.end(), std::back_inserter(open_.commands));
}

void DeviceClient::Seal() {
  if (!open_.commands.empty()) packets_.push_back(std::exchange(open_, {}));
}

Status DeviceClient::Flush() {
  GrantCredits();
  Seal();
  while (!packets_.empty()) {
    Packet& packet = packets_.front();
    cachecore::FaultPoint(cachecore::Fault::kBeforeCommands);
    const ssize_t sent =
        cachecore::SendWithDescriptor(socket_.get(), packet.text, packet.file.get(), MSG_DONTWAIT);
    if (sent < 0 && (errno == EAGAIN || errno == ENOBUFS || errno == ETOOMANYREFS)) return Status();
    if (sent < 0) return Status::FromErrno(errno, "send to holdfastd");
    cachecore::FaultPoint(cachecore::Fault::kCommandsSent);
    packet.text = {};
    packet.file.Reset();
    sent_.push_back(std::move(packet));
    packets_.pop_front();
  }
  return Status();
}

}  // namespace fetcher
