#include "fusefs/device_server.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <string>
#include <vector>

#include "fusefs/unix_listener.h"
#include "tests/cachecore/cache_rig.h"

namespace fusefs {
namespace {

using cachecore::CacheRig;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
namespace wire = cachecore::wire;

constexpr int kDeadlineMs = 10'000;

// One fetcher, by hand.
class Peer {
 public:
  explicit Peer(const std::string& path)
      : socket_(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    EXPECT_EQ(connect(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  void Send(const std::string& packet) {
    ASSERT_EQ(send(socket_.get(), packet.data(), packet.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(packet.size()));
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
  DeviceServerTest() : path_(rig_.directory + "/device.sock") {
    rig_.cache->Detach();  // The rig's own attachment.
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
  rig_.cache->Acquire({volume, "volume"}, "object", {}, false, [](const auto&) {});
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

}  // namespace
}  // namespace fusefs
