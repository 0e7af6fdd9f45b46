#include "tests/fusefs/server/fake_kernel.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>
#include <vector>

#include "fusefs/server/fuse_connection.h"

namespace fusefs {

using cachecore::Deadline;
using cachecore::Result;
using cachecore::Status;

namespace {

// Newer than Debian 12's headers.
constexpr int32_t kNotifyResend = 7;
constexpr uint32_t kHasResend = 1u << 7;  // In flags2.
constexpr uint64_t kInterruptBit = 1;
constexpr size_t kLargestPacket = (1 << 20) + 4096;

template <typename T>
std::string BytesOf(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

std::string RequestBytes(uint32_t opcode, uint64_t unique, uint64_t node, const std::string& body,
                         pid_t caller) {
  fuse_in_header header = {};
  header.len = static_cast<uint32_t>(sizeof(header) + body.size());
  header.opcode = opcode;
  header.unique = unique;
  header.nodeid = node;
  header.pid = static_cast<uint32_t>(caller);
  return BytesOf(header) + body;
}

uint64_t UniqueOf(const std::string& request) {
  uint64_t unique = 0;
  std::memcpy(&unique, request.data() + offsetof(fuse_in_header, unique), sizeof(unique));
  return unique;
}

}  // namespace

FakeKernel::FakeKernel() {
  signal(SIGPIPE, SIG_IGN);  // /dev/fuse raises none after an unmount.
  int ends[2];
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
  kernel_.Reset(ends[0]);
  daemon_.Reset(ends[1]);
}

cachecore::UniqueFd FakeKernel::DaemonEnd() const {
  return cachecore::UniqueFd(fcntl(daemon_.get(), F_DUPFD_CLOEXEC, 0));
}

void FakeKernel::Unmount() { kernel_.Reset(); }

void FakeKernel::Queue(const std::string& request) {
  EXPECT_EQ(send(kernel_.get(), request.data(), request.size(), 0),
            static_cast<ssize_t>(request.size()));
}

uint64_t FakeKernel::Send(uint32_t opcode, uint64_t node, const std::string& body, pid_t caller) {
  TakeWhatHasCome();  // A resend that was asked for before concerns earlier requests only.
  const uint64_t unique = std::exchange(next_unique_, next_unique_ + 2);
  const std::string request = RequestBytes(opcode, unique, node, body, caller);
  waiting_[unique] = request;
  Queue(request);
  return unique;
}

uint64_t FakeKernel::SendInit(bool offers_resend) {
  fuse_init_in init = {};
  init.major = FUSE_KERNEL_VERSION;
  init.minor = FUSE_KERNEL_MINOR_VERSION;
  init.max_readahead = 128 << 10;
  init.flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES |
               FUSE_AUTO_INVAL_DATA | FUSE_DO_READDIRPLUS | FUSE_ASYNC_DIO | FUSE_INIT_EXT;
  init.flags2 = offers_resend ? kHasResend : 0;
  return Send(FUSE_INIT, 0, BytesOf(init), 0);
}

uint64_t FakeKernel::SendLookup(uint64_t parent, const std::string& name, pid_t caller) {
  return Send(FUSE_LOOKUP, parent, name + '\0', caller);
}

uint64_t FakeKernel::SendRead(uint64_t node, cachecore::ByteRange range, pid_t caller) {
  fuse_read_in read = {};
  read.offset = range.begin;
  read.size = static_cast<uint32_t>(range.size());
  return Send(FUSE_READ, node, BytesOf(read), caller);
}

void FakeKernel::SendForget(uint64_t node) {
  fuse_forget_in forget = {};
  forget.nlookup = 1;
  Queue(RequestBytes(FUSE_FORGET, std::exchange(next_unique_, next_unique_ + 2), node,
                     BytesOf(forget), 0));
}

void FakeKernel::SendInterrupt(uint64_t unique) {
  fuse_interrupt_in interrupt = {};
  interrupt.unique = unique;
  if (const auto it = waiting_.find(unique); it != waiting_.end()) {
    interrupt.unique = UniqueOf(it->second);
  }
  const std::string request =
      RequestBytes(FUSE_INTERRUPT, interrupt.unique | kInterruptBit, 0, BytesOf(interrupt), 0);
  interrupts_[unique] = request;
  Queue(request);
}

bool FakeKernel::TakePacket(const Deadline& deadline) {
  if (!cachecore::WaitForFd(kernel_.get(), POLLIN, deadline).ok()) return false;
  std::vector<char> bytes(kLargestPacket);
  const ssize_t got = recv(kernel_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (got <= 0) return false;
  partial_.append(bytes.data(), static_cast<size_t>(got));
  fuse_out_header header;
  if (partial_.size() < sizeof(header)) return true;
  std::memcpy(&header, partial_.data(), sizeof(header));
  if (partial_.size() < header.len) return true;
  EXPECT_EQ(partial_.size(), header.len);
  const std::string whole = std::exchange(partial_, "");
  TakeReply(header, whole.substr(sizeof(header)));
  return true;
}

void FakeKernel::TakeReply(const fuse_out_header& header, const std::string& body) {
  if (header.unique == 0) {  // A notice: its code is in the error.
    EXPECT_EQ(header.error, kNotifyResend);
    ++resends_;
    ResendAll();
    return;
  }
  const uint64_t unique = header.unique & ~kResentBit & ~kInterruptBit;
  if ((header.unique & kInterruptBit) != 0) {
    EXPECT_EQ(header.error, -EAGAIN);
    if (waiting_.contains(unique)) Queue(interrupts_.at(unique));
    return;
  }
  const auto it = waiting_.find(unique);
  if (it == waiting_.end() || UniqueOf(it->second) != header.unique) {
    ++refused_replies_;
    return;
  }
  waiting_.erase(it);
  replies_[unique] = {-header.error, body};
}

void FakeKernel::ResendAll() {
  for (auto& [unique, request] : waiting_) {
    const uint64_t marked = unique | kResentBit;
    std::memcpy(request.data() + offsetof(fuse_in_header, unique), &marked, sizeof(marked));
    Queue(request);
  }
}

Result<FakeKernel::Reply> FakeKernel::Await(uint64_t unique) {
  const Deadline deadline(kPatience);
  while (!replies_.contains(unique)) {
    if (!TakePacket(deadline)) {
      return Status(ETIMEDOUT, "no reply to request " + std::to_string(unique));
    }
  }
  return replies_.at(unique);
}

void FakeKernel::TakeWhatHasCome() {
  while (TakePacket(Deadline(std::chrono::milliseconds(0)))) {
  }
}

bool FakeKernel::IsWaiting(uint64_t unique) {
  TakeWhatHasCome();
  return waiting_.contains(unique);
}

Status FakeKernel::AwaitResends(int count) {
  const Deadline deadline(kPatience);
  while (resends_ < count) {
    if (!TakePacket(deadline)) return Status(ETIMEDOUT, "no request to resend");
  }
  return Status();
}

}  // namespace fusefs
