// The control socket itself: which peers and requests get how far, with a handler of the test's.

#include "fusefs/control/control_server.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <future>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "cachecore/system/unix_listener.h"
#include "tests/cachecore/base/no_threads.h"

namespace fusefs {
namespace {

using cachecore::ListenUnix;
using cachecore::UniqueFd;
using nlohmann::json;

constexpr int kDeadlineMs = 20'000;
constexpr uid_t kStranger = 65534;

class ControlServerTest : public testing::Test {
 protected:
  ControlServerTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "holdfast-XXXXXX").string();
    directory_ = mkdtemp(pattern.data());
    server_ = ControlServer::Make(ListenUnix(Path(), SOCK_STREAM, geteuid()).value()).value();
    server_->Start([this](const std::string& request, int) {
      if (request == "wait") released_.get_future().wait();
      if (request == "hold") held_.wait();
      return "{\"echo\":\"" + request + "\"}";
    });
  }
  ~ControlServerTest() override {
    server_.reset();
    std::filesystem::remove_all(directory_);
  }

  std::string Path() const { return directory_ + "/control.sock"; }
  UniqueFd Connect() const {
    UniqueFd peer(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, Path().c_str(), sizeof(address.sun_path) - 1);
    EXPECT_EQ(connect(peer.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    return peer;
  }
  static void Send(const UniqueFd& peer, const std::string& bytes) {
    // The server may have answered and closed before it has read all of it.
    (void)!send(peer.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }
  // All that comes until the server closes.
  static std::string Receive(const UniqueFd& peer) {
    std::string all;
    char bytes[4096];
    pollfd ready = {peer.get(), POLLIN, 0};
    while (poll(&ready, 1, kDeadlineMs) == 1) {
      const ssize_t got = recv(peer.get(), bytes, sizeof(bytes), 0);
      if (got <= 0) return all;
      all.append(bytes, static_cast<size_t>(got));
    }
    return "no end after: " + all;
  }
  std::string Ask(const std::string& bytes) const {
    const UniqueFd peer = Connect();
    Send(peer, bytes);
    return Receive(peer);
  }

  std::string directory_;
  std::promise<void> released_;
  std::promise<void> hold_;
  const std::shared_future<void> held_{hold_.get_future()};
  std::unique_ptr<ControlServer> server_;
};

TEST_F(ControlServerTest, WithoutAThreadForItAConnectionIsRefusedWithTheCure) {
  {
    const cachecore::NoThreads none;
    const std::string answer = Receive(Connect());
    EXPECT_NE(answer.find("TasksMax"), std::string::npos) << answer;
  }
  EXPECT_EQ(Ask("x\n"), "{\"echo\":\"x\"}\n");
}

TEST_F(ControlServerTest, OneLineIsAnsweredWithOneLineAndTheConnectionCloses) {
  EXPECT_EQ(Ask("ping\n"), "{\"echo\":\"ping\"}\n");
  EXPECT_EQ(Ask("ping\nping\n"), "{\"echo\":\"ping\"}\n");
}

TEST_F(ControlServerTest, ALineThatComesInPartsIsOneRequest) {
  const UniqueFd peer = Connect();
  for (const char* part : {"pi", "n", "g\n"}) Send(peer, part);
  EXPECT_EQ(Receive(peer), "{\"echo\":\"ping\"}\n");
}

TEST_F(ControlServerTest, ALineThatIsTooLongOrNeverEndsIsNoRequest) {
  EXPECT_EQ(Ask(std::string(64 << 10, 'x')), "{\"echo\":\"\"}\n");
  const UniqueFd peer = Connect();
  Send(peer, "half");
  shutdown(peer.get(), SHUT_WR);
  EXPECT_EQ(Receive(peer), "{\"echo\":\"\"}\n");
}

TEST_F(ControlServerTest, APeerThatHangsUpBeforeItsAnswerHarmsNothing) {
  {
    const UniqueFd peer = Connect();
    Send(peer, "wait\n");
  }
  released_.set_value();
  EXPECT_EQ(Ask("ping\n"), "{\"echo\":\"ping\"}\n");
}

TEST_F(ControlServerTest, AnotherUserIsRefusedUnasked) {
  if (geteuid() != 0) GTEST_SKIP() << "acting as another user needs root";
  ASSERT_EQ(chmod(directory_.c_str(), 0755), 0);
  ASSERT_EQ(chmod(Path().c_str(), 0666), 0);
  std::string answer;
  // The system call changes the one thread only.
  std::thread stranger([&] {
    ASSERT_EQ(syscall(SYS_setresuid, -1, kStranger, -1), 0);
    answer = Receive(Connect());
  });
  stranger.join();
  const json refusal = json::parse(answer);
  EXPECT_EQ(refusal["ok"], false);
  EXPECT_EQ(refusal["errno"], EPERM);
  EXPECT_EQ(Ask("ping\n"), "{\"echo\":\"ping\"}\n");
}

TEST_F(ControlServerTest, MoreConnectionsThanItsLimitAreRefused) {
  std::vector<UniqueFd> peers;
  for (int i = 0; i < ControlServer::kMaxConnections; ++i) {
    peers.push_back(Connect());
    Send(peers.back(), "hold\n");
  }
  const json refusal = json::parse(Receive(Connect()));
  EXPECT_EQ(refusal["ok"], false);
  EXPECT_EQ(refusal["errno"], EBUSY);
  hold_.set_value();
  for (const UniqueFd& peer : peers) EXPECT_EQ(Receive(peer), "{\"echo\":\"hold\"}\n");
  EXPECT_EQ(Ask("ping\n"), "{\"echo\":\"ping\"}\n");
}

TEST_F(ControlServerTest, StopWaitsForTheRequestsThatItHasTaken) {
  const UniqueFd peer = Connect();
  Send(peer, "hold\n");
  const UniqueFd later = Connect();
  Send(later, "ping\n");
  EXPECT_EQ(Receive(later), "{\"echo\":\"ping\"}\n");  // So the first has been taken.
  std::future<void> stopped = std::async(std::launch::async, [this] { server_->Stop(); });
  EXPECT_EQ(stopped.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  hold_.set_value();
  EXPECT_EQ(stopped.wait_for(std::chrono::milliseconds(kDeadlineMs)), std::future_status::ready);
  EXPECT_EQ(Receive(peer), "{\"echo\":\"hold\"}\n");
}

}  // namespace
}  // namespace fusefs
