#include "fetcher/client/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <future>

#include "tests/fetcher/engine/fake_daemon.h"

namespace fetcher {
namespace {

namespace wire = cachecore::wire;
using testing::ElementsAre;
using testing::SizeIs;

class Recorder : public DeviceHandler {
 public:
  void OnOpen(OpenRequest open) override { opens.push_back(std::move(open)); }
  void OnRead(MsgId msg_id, ObjectId, ByteRange) override { reads.push_back(msg_id.value); }
  void OnClose(ObjectId object_id) override { closes.push_back(object_id.value); }
  void OnRejected(const wire::Command& command, int error) override {
    rejected.push_back(wire::FormatCommand(command) + " -> " + std::to_string(error));
  }

  std::vector<OpenRequest> opens;
  std::vector<uint32_t> reads;
  std::vector<uint32_t> closes;
  std::vector<std::string> rejected;
};

class DeviceClientTest : public testing::Test {
 protected:
  Status Connect(wire::HelloMessage hello = Hello(0), uint32_t credits = 8) {
    auto connecting = std::async(std::launch::async,
                                 [&] { return DeviceClient::Connect(daemon_.path(), credits); });
    daemon_.Accept(hello);
    auto client = connecting.get();
    if (!client.ok()) return std::move(client).status();
    client_ = std::move(client).value();
    return Status();
  }
  void Attach(wire::HelloMessage hello = Hello(0), uint32_t credits = 8) {
    ASSERT_TRUE(Connect(hello, credits).ok());
    daemon_.WaitUntil([&] { return daemon_.credits() == credits; });
    ASSERT_TRUE(client_->ReadMessages(&handler_).ok());
  }

  FakeDaemon daemon_;
  Recorder handler_;
  std::unique_ptr<DeviceClient> client_;
};

TEST_F(DeviceClientTest, IntroducesItselfInThisOrder) {
  Attach();
  EXPECT_EQ(client_->generation().value, 42u);
  EXPECT_THAT(daemon_.packets(), ElementsAre("caps 39\n", "restore\ncredit 8\n"));
}

TEST_F(DeviceClientTest, SpeaksOneCommandAPacketToADaemonWithoutBatches) {
  Attach(Hello(0, 1, 0));
  client_->SetAttr({1}, "not to be sent");
  client_->CopenError({3}, ENOENT, "gone");
  ASSERT_TRUE(client_->Flush().ok());
  EXPECT_EQ(daemon_.NextLine(), "cause 3,gone");
  EXPECT_EQ(daemon_.NextLine(), "copen 3,-2");
  EXPECT_THAT(daemon_.packets(),
              ElementsAre("caps 0\n", "restore\n", "credit 8\n", "cause 3,gone\n", "copen 3,-2\n"));
}

TEST_F(DeviceClientTest, AnswersToManyRequestsTravelInOnePacket) {
  Attach();
  client_->Filled({1}, {0, 4096});
  client_->Complete({1}, {2});
  client_->Fail({1}, {3}, EIO, "no");
  ASSERT_TRUE(client_->Flush().ok());
  daemon_.LinesUntil("cread 1,3");
  EXPECT_EQ(daemon_.packets().back(), "filled 1,0,4096\ncread 1,2\ncause 3,no\ncread 1,3,5\n");
}

TEST_F(DeviceClientTest, PacketsStayWithinTheirLimits) {
  Attach();
  for (uint32_t i = 0; i < 3000; ++i) client_->Complete({1}, {i});
  for (uint32_t i = 0; i < 100; ++i) client_->Fail({1}, {i}, EIO, std::string(1000, 'x'));
  ASSERT_TRUE(client_->Flush().ok());
  daemon_.LinesUntil("cread 1,99,5");
  for (const std::string& packet : daemon_.packets()) {
    EXPECT_LE(packet.size(), wire::kMaxCommandPacket);
    EXPECT_LE(std::count(packet.begin(), packet.end(), '\n'), 1024);
    EXPECT_FALSE(packet.starts_with("cread 1,5,")) << "a failure was parted from its cause";
  }
}

TEST_F(DeviceClientTest, WhatAFullSocketDoesNotTakeIsSentLater) {
  Attach();
  constexpr uint32_t kAnswers = 200'000;  // Some MiB of text; a socket's buffer is far smaller.
  for (uint32_t i = 0; i < kAnswers; ++i) client_->Complete({1}, {i});
  ASSERT_TRUE(client_->Flush().ok());
  ASSERT_TRUE(client_->WantsWrite());
  std::vector<std::string> lines;
  while (lines.size() < kAnswers) {
    lines.push_back(daemon_.NextLine());
    ASSERT_TRUE(client_->Flush().ok());
    ASSERT_TRUE(client_->ReadMessages(&handler_).ok());
  }
  EXPECT_FALSE(client_->WantsWrite());
  EXPECT_EQ(lines.front(), "cread 1,0");
  EXPECT_EQ(lines.back(), "cread 1," + std::to_string(kAnswers - 1));
}

TEST_F(DeviceClientTest, MessagesReachTheHandler) {
  Attach();
  daemon_.Open(1, 2, "vol", "cookie", "attr");
  daemon_.Read(3, 2, 0, 4096);
  daemon_.Send(wire::CloseMessage{{4}, {2}});
  ASSERT_TRUE(client_->ReadMessages(&handler_).ok());
  ASSERT_THAT(handler_.opens, SizeIs(1));
  EXPECT_EQ(handler_.opens[0].volume_key, "vol");
  EXPECT_EQ(handler_.opens[0].cookie_key, "cookie");
  EXPECT_EQ(handler_.opens[0].attr, "attr");
  EXPECT_EQ(pwrite(handler_.opens[0].data_fd.get(), "data", 4, 0), 4);
  EXPECT_EQ(daemon_.Data(2, {0, 4}), "data");
  EXPECT_THAT(handler_.reads, ElementsAre(3));
  EXPECT_THAT(handler_.closes, ElementsAre(2));
}

TEST_F(DeviceClientTest, CreditsAreGivenBackAsMessagesAreTaken) {
  Attach(Hello(0), 8);
  for (uint32_t i = 0; i < 8; ++i) daemon_.Read(i, 1, 0, 4096);
  ASSERT_TRUE(client_->ReadMessages(&handler_).ok());
  ASSERT_TRUE(client_->Flush().ok());
  daemon_.WaitUntil([&] { return daemon_.credits() == 16; });
}

TEST_F(DeviceClientTest, RequestsThatAreClosedOrWithdrawnDoNotUseUpTheCredits) {
  Attach(Hello(0), 128);
  daemon_.Refuse("cause", EINVAL);
  uint32_t id = 0;
  while (id <= DeviceClient::kMaxUnanswered + 256) {
    const uint32_t granted = daemon_.credits();
    for (uint32_t i = 0; i < 127; ++i) {
      daemon_.Read(id++, 1, 0, 4096);
    }
    daemon_.Send(wire::CloseMessage{{id++}, {1}});
    ASSERT_TRUE(client_->ReadMessages(&handler_).ok());
    ASSERT_TRUE(client_->Flush().ok());
    daemon_.WaitUntil([&] { return daemon_.credits() >= granted + 128; });
    ASSERT_TRUE(client_->ReadMessages(&handler_).ok());
  }
  for (uint32_t i = 0; i <= DeviceClient::kMaxUnanswered; i += 128) {
    const uint32_t granted = daemon_.credits();
    for (uint32_t j = 0; j < 128; ++j) daemon_.Read(id + j, 2, 0, 4096);
    ASSERT_TRUE(client_->ReadMessages(&handler_).ok());
    for (uint32_t j = 0; j < 128; ++j) client_->Cause({id + j}, "none");
    id += 128;
    ASSERT_TRUE(client_->Flush().ok());
    daemon_.WaitUntil([&] { return daemon_.credits() >= granted + 128; });
    daemon_.LinesUntil("cause " + std::to_string(id - 1));
    ASSERT_TRUE(client_->ReadMessages(&handler_).ok());
  }
}

TEST_F(DeviceClientTest, RefusedCommandsAreReportedAsTheyWere) {
  Attach();
  daemon_.Refuse("cread 1,2", EINVAL);
  client_->Complete({1}, {1});
  client_->Complete({1}, {2});
  ASSERT_TRUE(client_->Flush().ok());
  daemon_.LinesUntil("cread 1,2");
  ASSERT_TRUE(client_->ReadMessages(&handler_).ok());
  EXPECT_THAT(handler_.rejected, ElementsAre("cread 1,2 -> 22"));
}

TEST_F(DeviceClientTest, RefusalsAtTheDoorAreErrnos) {
  EXPECT_EQ(Connect(Hello(-EBUSY)).error(), EBUSY);
  EXPECT_EQ(Connect(Hello(-EPERM)).error(), EPERM);
  EXPECT_EQ(Connect(Hello(0, 7)).error(), EPROTONOSUPPORT);
  EXPECT_EQ(DeviceClient::Connect(daemon_.dir() + "/absent", 1).status().error(), ENOENT);
  EXPECT_EQ(DeviceClient::Connect(std::string(200, 'x'), 1).status().error(), ENAMETOOLONG);
}

// The client's connection as it is when the client's process has died and a keeper has a copy.
UniqueFd LeftBehind(std::unique_ptr<DeviceClient> client) { return UniqueFd(dup(client->fd())); }

TEST_F(DeviceClientTest, ASuccessorGetsNothingThatWasMeantForTheDeadFetcher) {
  Attach();
  daemon_.Open(1, 1, "v", "c");
  daemon_.Read(2, 1, 0, 4096);
  daemon_.Send(wire::HelloMessage{0, 1, kFakeCaps, {42}, 0});  // Of a successor that died too.
  daemon_.Send(wire::ReplyMessage{99, {-EINVAL}});
  UniqueFd left = LeftBehind(std::move(client_));
  auto resuming =
      std::async(std::launch::async, [&] { return DeviceClient::Resume(std::move(left), 16); });
  daemon_.AcceptHeir();
  auto client = resuming.get();
  ASSERT_TRUE(client.ok()) << client.status().message();
  client_ = std::move(client).value();
  EXPECT_EQ(client_->generation().value, 43u);
  daemon_.WaitUntil([&] { return daemon_.credits() == 16; });
  EXPECT_THAT(daemon_.packets(), ElementsAre("caps 39\n", "restore\ncredit 16\n"));
  daemon_.Open(3, 2, "v", "d");
  ASSERT_TRUE(client_->ReadMessages(&handler_).ok());
  EXPECT_THAT(handler_.opens, SizeIs(1));
  EXPECT_EQ(handler_.opens[0].object_id.value, 2u);
  EXPECT_THAT(handler_.reads, SizeIs(0));
  EXPECT_THAT(handler_.rejected, SizeIs(0));
}

TEST_F(DeviceClientTest, AConnectionWithoutItsDaemonCannotBeResumed) {
  Attach();
  daemon_.Read(1, 1, 0, 4096);
  UniqueFd left = LeftBehind(std::move(client_));
  daemon_.Disconnect();
  const auto client = DeviceClient::Resume(std::move(left), 8);
  EXPECT_THAT(client.status().error(), testing::AnyOf(ECONNRESET, EPIPE));
}

TEST_F(DeviceClientTest, WaitingForADaemonThatDoesNotAnswerCanBeCalledOff) {
  Attach();
  int turns = 0;
  const auto client =
      DeviceClient::Resume(LeftBehind(std::move(client_)), 8, [&] { return ++turns < 5; });
  EXPECT_EQ(client.status().error(), ECANCELED);
}

TEST_F(DeviceClientTest, WhatIsNoMessageEndsTheConnection) {
  const auto error_after = [&](const std::string& bytes, int fd = -1) {
    Attach();
    daemon_.SendBytes(bytes, fd);
    return client_->ReadMessages(&handler_).error();
  };
  const auto encode = [](const wire::Message& message) {
    return wire::EncodeMessage(message, wire::kAllCaps);
  };
  EXPECT_EQ(error_after("x"), EBADMSG);
  EXPECT_EQ(error_after(std::string(wire::kMaxMessageSize + 1, 'x')), EBADMSG);
  EXPECT_EQ(error_after(encode(wire::OpenMessage{{0}, {1}, "v", "c", -1, ""})), EBADMSG)
      << "an OPEN without its file";
  EXPECT_EQ(error_after(encode(wire::CloseMessage{{0}, {1}}), 0), EBADMSG) << "a file too many";
  EXPECT_EQ(error_after(encode(wire::HelloMessage{})), EBADMSG) << "a second HELLO";
  EXPECT_EQ(error_after(encode(wire::ReplyMessage{9, {0}})), EBADMSG) << "a stray REPLY";
}

TEST_F(DeviceClientTest, TheEndOfTheDaemonIsECONNRESET) {
  Attach();
  daemon_.Disconnect();
  EXPECT_EQ(client_->ReadMessages(&handler_).error(), ECONNRESET);
}

}  // namespace
}  // namespace fetcher
