#include "tests/fetcher/engine/fake_daemon.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <stdexcept>

#include "cachecore/base/unix_socket.h"

namespace wire = cachecore::wire;
using cachecore::UniqueFd;

namespace {

using Clock = std::chrono::steady_clock;

// Tests cannot go on without the peer; the exception ends the test, whose fixture cleans up.
[[noreturn]] void GiveUp(const std::string& why) { throw std::runtime_error("FakeDaemon: " + why); }

bool Readable(int fd, std::chrono::milliseconds timeout) {
  pollfd ready = {fd, POLLIN, 0};
  return poll(&ready, 1, static_cast<int>(timeout.count())) > 0;
}

}  // namespace

FakeDaemon::FakeDaemon() {
  char name[] = "/tmp/holdfast-fetcher-test-XXXXXX";
  if (mkdtemp(name) == nullptr) GiveUp("mkdtemp failed");
  dir_ = name;
  listener_.Reset(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path().c_str(), sizeof(address.sun_path) - 1);
  if (bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 ||
      listen(listener_.get(), 8) != 0) {
    GiveUp("cannot listen");
  }
}

FakeDaemon::~FakeDaemon() { std::filesystem::remove_all(dir_); }

void FakeDaemon::Accept(wire::HelloMessage hello) {
  if (!Readable(listener_.get(), kPatience)) GiveUp("no fetcher connects");
  peer_.Reset(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  next_packet_ = 0;
  Send(hello);
}

void FakeDaemon::AcceptHeir() {
  resumed_ = 0;
  WaitUntil([this] { return resumed_ != 0; });
}

void FakeDaemon::SendBytes(const std::string& bytes, int fd) {
  // A peer that has hung up is for the test to notice by what it waits for next.
  static_cast<void>(cachecore::SendWithDescriptor(peer_.get(), bytes, fd));
}

void FakeDaemon::Send(const wire::Message& message, int fd) {
  SendBytes(wire::EncodeMessage(message, wire::kAllCaps), fd);
}

void FakeDaemon::Open(uint32_t msg, uint32_t object, const std::string& volume,
                      const std::string& cookie, const std::string& attr) {
  data_[object].Reset(memfd_create("data", MFD_CLOEXEC));
  Send(wire::OpenMessage{{msg}, {object}, volume, cookie, -1, attr}, data_[object].get());
}

void FakeDaemon::Read(uint32_t msg, uint32_t object, uint64_t offset, uint64_t length) {
  Send(wire::ReadMessage{{msg}, {object}, cachecore::ByteRange::At(offset, length)});
}

void FakeDaemon::ReadAhead(uint32_t msg, uint32_t object, uint64_t offset, uint64_t length) {
  Send(wire::ReadMessage{{msg}, {object}, cachecore::ByteRange::At(offset, length), true});
}

std::string FakeDaemon::Data(uint32_t object, cachecore::ByteRange range) const {
  std::string bytes(range.size(), '\0');
  const ssize_t got =
      pread(data_.at(object).get(), bytes.data(), bytes.size(), static_cast<off_t>(range.begin));
  bytes.resize(got < 0 ? 0 : static_cast<size_t>(got));
  return bytes;
}

uint64_t FakeDaemon::DataSize(uint32_t object) const {
  struct stat info = {};
  fstat(data_.at(object).get(), &info);
  return static_cast<uint64_t>(info.st_size);
}

bool FakeDaemon::Pump(std::chrono::milliseconds timeout) {
  if (!peer_.valid()) return false;
  if (!Readable(peer_.get(), timeout)) return true;
  std::string packet(wire::kMaxCommandPacket + 1, '\0');
  iovec iov = {packet.data(), packet.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header = {};
  header.msg_iov = &iov;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  const ssize_t size = recvmsg(peer_.get(), &header, MSG_CMSG_CLOEXEC);
  if (size <= 0) return false;
  if (const cmsghdr* file = CMSG_FIRSTHDR(&header); file != nullptr) {
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(file), sizeof(fd));
    files_.emplace_back(fd);
  }
  packet.resize(static_cast<size_t>(size));
  packets_.push_back(packet);
  const auto lines = wire::SplitPacket(packet);
  if (!lines.ok()) GiveUp("malformed packet: " + packet);
  wire::ReplyMessage reply{next_packet_++, {}};
  for (const std::string_view line : *lines) {
    const auto command = wire::ParseCommand(line);
    if (!command.ok()) GiveUp("malformed command: " + std::string(line));
    if (const auto* resume = std::get_if<wire::ResumeCommand>(&*command)) {
      packets_.clear();
      next_packet_ = credits_ = restores_ = 0;
      resumed_ = resume->token;
      Send(wire::HelloMessage{0, wire::kProtocolVersion, kFakeCaps, {43}, resumed_});
      return true;
    }
    int32_t result = 0;
    for (const auto& [prefix, error] : refusals_) {
      if (line.starts_with(prefix)) result = -error;
    }
    reply.results.push_back(result);
    if (const auto* credit = std::get_if<wire::CreditCommand>(&*command)) {
      credits_ += credit->count;
    } else if (std::holds_alternative<wire::RestoreCommand>(*command)) {
      ++restores_;
    } else if (!std::holds_alternative<wire::CapsCommand>(*command)) {
      lines_.emplace_back(line);
    }
  }
  Send(reply);
  return true;
}

void FakeDaemon::WaitUntil(const std::function<bool()>& done) {
  const auto deadline = Clock::now() + kPatience;
  while (!done()) {
    if (Clock::now() > deadline) GiveUp("waited in vain");
    if (!Pump(std::chrono::milliseconds(10)) && !done()) GiveUp("the fetcher hung up");
  }
}

std::string FakeDaemon::NextLine() {
  WaitUntil([this] { return !lines_.empty(); });
  const std::string line = lines_.front();
  lines_.pop_front();
  return line;
}

std::string FakeDaemon::NextLineBut(const std::string& prefix) {
  std::string line = NextLine();
  while (line.starts_with(prefix)) line = NextLine();
  return line;
}

std::vector<std::string> FakeDaemon::LinesUntil(const std::string& prefix) {
  std::vector<std::string> lines;
  do {
    lines.push_back(NextLine());
  } while (!lines.back().starts_with(prefix));
  return lines;
}

void FakeDaemon::WaitForEnd() {
  const auto deadline = Clock::now() + kPatience;
  while (Pump(std::chrono::milliseconds(10))) {
    if (Clock::now() > deadline) GiveUp("the fetcher does not hang up");
  }
  peer_.Reset();
}
