#include "fusefs/device/device_server.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "cachecore/system/unix_listener.h"
#include "tests/cachecore/cache/cache_rig.h"

namespace fusefs {
namespace {

using cachecore::CacheRig;
using cachecore::ListenUnix;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
namespace wire = cachecore::wire;

constexpr int kDeadlineMs = 10'000;

int ConnectTo(const std::string& path) {
  const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  return fd;
}

// One fetcher, by hand.
class Peer {
 public:
  explicit Peer(const std::string& path) : Peer(UniqueFd(ConnectTo(path))) {}
  explicit Peer(UniqueFd connected) : socket_(std::move(connected)) {}
  void Send(const std::string& packet) {
    ASSERT_EQ(send(socket_.get(), packet.data(), packet.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(packet.size()));
  }
  // The same with descriptors, which stay the caller's.
  void Send(const std::string& packet, const std::vector<int>& files) {
    iovec iov = {const_cast<char*>(packet.data()), packet.size()};
    std::vector<char> control(CMSG_SPACE(files.size() * sizeof(int)));
    msghdr header = {};
    header.msg_iov = &iov;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    cmsghdr* message = CMSG_FIRSTHDR(&header);
    message->cmsg_level = SOL_SOCKET;
    message->cmsg_type = SCM_RIGHTS;
    message->cmsg_len = CMSG_LEN(files.size() * sizeof(int));
    std::memcpy(CMSG_DATA(message), files.data(), files.size() * sizeof(int));
    ASSERT_EQ(sendmsg(socket_.get(), &header, MSG_NOSIGNAL), static_cast<ssize_t>(packet.size()));
  }
  // The next message; EOF is ENOTCONN, a missed deadline ETIMEDOUT.
  Result<wire::Message> Receive(uint32_t caps = wire::kAllCaps) {
    pollfd ready = {socket_.get(), POLLIN, 0};
    if (poll(&ready, 1, kDeadlineMs) != 1) return Status(ETIMEDOUT, "nothing came");
    char bytes[wire::kMaxMessageSize];
    const ssize_t got = recv(socket_.get(), bytes, sizeof(bytes), 0);
    if (got <= 0) return Status(ENOTCONN, "hung up");
    return wire::DecodeMessage({bytes, static_cast<size_t>(got)}, caps);
  }
  int32_t HelloStatus() {
    const auto message = Receive();
    return message.ok() ? std::get<wire::HelloMessage>(*message).status : 1;
  }
  std::vector<int32_t> Ask(const std::string& packet) {
    Send(packet);
    const auto message = Receive();
    if (!message.ok()) return {1};
    return std::get<wire::ReplyMessage>(*message).results;
  }
  void HangUp() { socket_.Reset(); }

 private:
  UniqueFd socket_;
};

class DeviceServerTest : public testing::Test {
 protected:
  explicit DeviceServerTest(cachecore::CacheOptions options = {})
      : rig_(options), path_(rig_.directory + "/device.sock") {
    rig_.cache->device().Detach();  // The rig's own attachment.
    auto listener = ListenUnix(path_, SOCK_SEQPACKET, geteuid());
    server_ = DeviceServer::Make(std::move(listener).value(), geteuid()).value();
    server_->Start(rig_.cache.get());
  }
  ~DeviceServerTest() override { server_.reset(); }

  CacheRig rig_;
  std::string path_;
  std::unique_ptr<DeviceServer> server_;
};

TEST_F(DeviceServerTest, TheFirstIsGreetedTheSecondIsTurnedAwayAndTheNextComesAfterAHangUp) {
  Peer first(path_);
  EXPECT_EQ(first.HelloStatus(), 0);
  Peer second(path_);
  EXPECT_EQ(second.HelloStatus(), -EBUSY);
  EXPECT_EQ(second.Receive().status().error(), ENOTCONN);
  first.HangUp();
  Peer third(path_);
  EXPECT_EQ(third.HelloStatus(), 0);
}

TEST_F(DeviceServerTest, BadPacketsGetAnErrnoAndTheConnectionGoesOn) {
  Peer peer(path_);
  EXPECT_EQ(peer.HelloStatus(), 0);
  EXPECT_EQ(peer.Ask("caps 3"), std::vector<int32_t>{0});
  EXPECT_EQ(peer.Ask("caps 4096"), std::vector<int32_t>{-EINVAL});
  EXPECT_EQ(peer.Ask("nonsense"), std::vector<int32_t>{-EOPNOTSUPP});
  EXPECT_EQ(peer.Ask(std::string("cre\0ad", 6)), std::vector<int32_t>{-EINVAL});
  EXPECT_EQ(peer.Ask("\n"), std::vector<int32_t>{-EINVAL});
  EXPECT_EQ(peer.Ask(std::string(wire::kMaxCommandPacket + 1, 'x')), std::vector<int32_t>{-E2BIG});
  EXPECT_EQ(peer.Ask("copen 1,1\nfilled 1,0,4096\ncread 1,1\nclose 1\nattr 1,\ncause 1,x"),
            (std::vector<int32_t>(6, -EINVAL)));
  EXPECT_EQ(peer.Ask("restore"), std::vector<int32_t>{0});
}

TEST_F(DeviceServerTest, ThroughIsNotOfferedUnlessItIsToBeServedSo) {
  Peer peer(path_);
  const auto hello = peer.Receive();
  ASSERT_TRUE(hello.ok());
  EXPECT_EQ(std::get<wire::HelloMessage>(*hello).caps, wire::kAllCaps & ~wire::kCapThrough);
  EXPECT_EQ(peer.Ask("caps " + std::to_string(wire::kAllCaps)), std::vector<int32_t>{-EINVAL});
  EXPECT_EQ(peer.Ask("caps 3"), std::vector<int32_t>{0});
  EXPECT_EQ(peer.Ask("full 1\nthrough 1,1,0,4096"), std::vector<int32_t>(2, -EOPNOTSUPP));
}

class DeviceServerThroughTest : public DeviceServerTest {
 protected:
  static cachecore::CacheOptions Options() {
    cachecore::CacheOptions options;
    options.serve_through = true;
    return options;
  }
  DeviceServerThroughTest() : DeviceServerTest(Options()) {}
};

TEST_F(DeviceServerThroughTest, ADescriptorComesWithItsPacketAndOthersAreClosed) {
  Peer peer(path_);
  EXPECT_EQ(peer.HelloStatus(), 0);
  EXPECT_EQ(peer.Ask("caps " + std::to_string(wire::kAllCaps)), std::vector<int32_t>{0});
  const auto volume = *rig_.cache->AddVolume("volume");
  cachecore::ObjectNumber number;
  rig_.cache->Acquire({volume, "volume"}, "object", {}, cachecore::Freshness::kKnown,
                      [&](const auto& info) { number = info->number; });
  EXPECT_EQ(peer.Ask("credit 8"), std::vector<int32_t>{0});
  const auto opened = peer.Receive();
  ASSERT_TRUE(opened.ok());
  const auto& open = std::get<wire::OpenMessage>(*opened);
  EXPECT_EQ(peer.Ask("copen " + std::to_string(open.msg_id.value) + ",65536"),
            std::vector<int32_t>{0});
  std::atomic<bool> ended = false;
  rig_.cache->Read(number, {0, 4096},
                   [&](const Status& status, const auto&) { ended = status.ok(); });
  server_->Wake();
  const auto asked = peer.Receive();
  ASSERT_TRUE(asked.ok());
  const std::string object = std::to_string(open.object_id.value);
  const std::string through = "through " + object + "," +
                              std::to_string(std::get<wire::ReadMessage>(*asked).msg_id.value) +
                              ",0,65536";
  UniqueFd file(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  const std::string bytes(65536, 'x');
  ASSERT_EQ(pwrite(file.get(), bytes.data(), bytes.size(), 0), 65536);
  ASSERT_EQ(fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE), 0);

  // Of this file: the store opens others at any time.
  const auto count_files = [] {
    const std::filesystem::directory_iterator files("/proc/self/fd");
    return std::count_if(begin(files), end(files), [](const auto& entry) {
      std::error_code gone;
      return std::filesystem::read_symlink(entry, gone).string().starts_with("/memfd:test");
    });
  };
  const auto before = count_files();
  for (int i = 0; i < 20; ++i) {  // With commands that take none, and more than one.
    peer.Send("restore\nnonsense", {file.get(), file.get(), file.get()});
    const auto reply = peer.Receive();
    ASSERT_TRUE(reply.ok());
    if (std::holds_alternative<wire::ReadMessage>(*reply)) --i;  // Delivered again.
  }
  EXPECT_EQ(count_files(), before);
  EXPECT_FALSE(ended);
  peer.Send("full " + object + "\n" + through, {file.get()});
  for (int i = 0; i < 100 && !ended; ++i) {
    const auto message = peer.Receive();
    ASSERT_TRUE(message.ok());
  }
  EXPECT_TRUE(ended);
}

TEST_F(DeviceServerTest, WithoutBatchTheFirstNewlineEndsThePacket) {
  Peer peer(path_);
  EXPECT_EQ(peer.HelloStatus(), 0);
  EXPECT_EQ(peer.Ask("restore\nnonsense"), std::vector<int32_t>{0});
}

TEST_F(DeviceServerTest, CreditsAreLimitedAndNothingIsSentWithoutThem) {
  Peer peer(path_);
  EXPECT_EQ(peer.HelloStatus(), 0);
  EXPECT_EQ(peer.Ask("caps 3"), std::vector<int32_t>{0});
  const auto volume = *rig_.cache->AddVolume("volume");
  rig_.cache->Acquire({volume, "volume"}, "object", {}, cachecore::Freshness::kKnown,
                      [](const auto&) {});
  server_->Wake();
  EXPECT_EQ(peer.Ask("credit 4097"), std::vector<int32_t>{-ERANGE});
  EXPECT_EQ(peer.Ask("credit 1"), std::vector<int32_t>{0});
  const auto open = peer.Receive();
  ASSERT_TRUE(open.ok());
  EXPECT_EQ(std::get<wire::OpenMessage>(*open).cookie_key, "object");
  EXPECT_EQ(peer.Ask("credit 4096"), std::vector<int32_t>{0});
  EXPECT_EQ(peer.Ask("credit 1"), std::vector<int32_t>{-EINVAL});
}

TEST_F(DeviceServerTest, APeerThatVanishesInMidConversationDetaches) {
  for (int i = 0; i < 50; ++i) {
    Peer peer(path_);
    // The one before may not have been noticed as gone yet.
    const int32_t status = peer.HelloStatus();
    EXPECT_TRUE(status == 0 || status == -EBUSY) << status;
    peer.HangUp();
  }
  // Each hang-up is noticed; until the last one has been, the door says EBUSY.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kDeadlineMs);
  int32_t status = -EBUSY;
  while (status == -EBUSY && std::chrono::steady_clock::now() < deadline) {
    Peer last(path_);
    status = last.HelloStatus();
    if (status == 0) {
      EXPECT_TRUE(server_->fetcher().has_value());
    }
  }
  EXPECT_EQ(status, 0);
}

// What a dead fetcher left behind, and how its successor finds the mark before its own packets.
TEST_F(DeviceServerTest, ASuccessorContinuesOnAConnectionAndNoReadFails) {
  Peer dead(path_);
  EXPECT_EQ(dead.HelloStatus(), 0);
  const uint64_t generation = rig_.cache->generation().value;
  EXPECT_EQ(dead.Ask("caps 3"), std::vector<int32_t>{0});
  const auto volume = *rig_.cache->AddVolume("volume");
  cachecore::Status acquired(EINPROGRESS, "");
  rig_.cache->Acquire({volume, "volume"}, "object", {}, cachecore::Freshness::kKnown,
                      [&](const auto& info) { acquired = info.status(); });
  dead.Send("restore\ncredit 8");
  dead.Send("resume 7\nignored");
  dead.Send("resume 8");
  // Left unread by the dead one: the answer, the OPEN.  Then the mark of a successor that died too.
  wire::HelloMessage hello;
  for (int opens = 0; hello.resumed != 8;) {
    auto message = dead.Receive();
    ASSERT_TRUE(message.ok()) << message.status().message();
    opens += std::holds_alternative<wire::OpenMessage>(*message) ? 1 : 0;
    EXPECT_LE(opens, 1);
    if (const auto* mark = std::get_if<wire::HelloMessage>(&*message)) hello = *mark;
  }
  EXPECT_EQ(hello.status, 0);
  EXPECT_EQ(hello.generation.value, generation + 2);
  EXPECT_EQ(server_->fetcher()->generation.value, generation + 2);
  EXPECT_EQ(acquired.error(), EINPROGRESS);

  // Credits, capabilities and packet numbers start again; pending requests are resent.
  dead.Send("restore\ncredit 8");
  auto reply = dead.Receive(0);
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(std::get<wire::ReplyMessage>(*reply).packet, 0u);
  EXPECT_EQ(std::get<wire::ReplyMessage>(*reply).results, std::vector<int32_t>{0});
  EXPECT_EQ(dead.Ask("caps 3"), std::vector<int32_t>{0});
  dead.Send("credit 8");
  wire::OpenMessage open;
  for (int i = 0; i < 2; ++i) {
    auto message = dead.Receive();
    ASSERT_TRUE(message.ok());
    if (const auto* found = std::get_if<wire::OpenMessage>(&*message)) open = *found;
  }
  EXPECT_EQ(open.cookie_key, "object");
  EXPECT_EQ(dead.Ask("copen " + std::to_string(open.msg_id.value) + ",4096"),
            std::vector<int32_t>{0});
  EXPECT_TRUE(acquired.ok());
}

TEST_F(DeviceServerTest, ResumeComesFirstInItsPacketAndHasAToken) {
  Peer peer(path_);
  EXPECT_EQ(peer.HelloStatus(), 0);
  EXPECT_EQ(peer.Ask("caps 3"), std::vector<int32_t>{0});
  EXPECT_EQ(peer.Ask("restore\nresume 1"), (std::vector<int32_t>{0, -EINVAL}));
  EXPECT_EQ(peer.Ask("resume 0"), std::vector<int32_t>{-EINVAL});
  EXPECT_EQ(peer.Ask("resume 4294967296"), std::vector<int32_t>{-ERANGE});
  EXPECT_EQ(peer.Ask("resume"), std::vector<int32_t>{-EINVAL});
}

// Its connection lives on in a keeper's hands, here the test's.
TEST_F(DeviceServerTest, AFetcherWhoseProcessHasDiedIsNotCalledAttachedThoughItsConnectionIs) {
  // A child with our table of descriptors: the connection stays when it is gone.
  const auto child = static_cast<pid_t>(syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0));
  if (child == 0) _exit(ConnectTo(path_));
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  Peer kept(UniqueFd(WEXITSTATUS(status)));
  EXPECT_EQ(kept.HelloStatus(), 0);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kDeadlineMs);
  while (server_->fetcher().has_value() && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::yield();
  }
  EXPECT_FALSE(server_->fetcher().has_value());
  Peer other(path_);
  EXPECT_EQ(other.HelloStatus(), -EBUSY);
  kept.Send("resume 5");
  EXPECT_EQ(kept.HelloStatus(), 0);
  EXPECT_EQ(server_->fetcher()->pid, getpid());
}

}  // namespace
}  // namespace fusefs
