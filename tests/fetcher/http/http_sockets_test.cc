#include "fetcher/http/http_sockets.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "cachecore/base/unique_fd.h"
#include "fetcher/http/http_engine.h"
#include "fetcher/origins/http_backend.h"

namespace fetcher {
namespace {

using cachecore::UniqueFd;

constexpr std::string_view kAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbytes";
constexpr Duration kDeadline = std::chrono::seconds(30);

// A server that answers when the test says so.
class Listener {
 public:
  Listener() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* bound = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(bind(fd_.get(), bound, size), 0);
    EXPECT_EQ(listen(fd_.get(), 8), 0);
    EXPECT_EQ(getsockname(fd_.get(), bound, &size), 0);
    port_ = ntohs(address.sin_port);
  }
  int fd() const { return fd_.get(); }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_) + "/"; }
  UniqueFd Accept() const { return UniqueFd(accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC)); }

 private:
  const UniqueFd fd_;
  uint16_t port_ = 0;
};

class HttpSocketsTest : public testing::Test {
 protected:
  struct Request {
    CURL* easy = nullptr;
    UniqueFd server_end;
    size_t bytes = 0;
  };

  ~HttpSocketsTest() override {
    for (Request& request : requests_) {
      curl_multi_remove_handle(multi_, request.easy);
      curl_easy_cleanup(request.easy);
    }
    curl_multi_cleanup(multi_);
  }

  static size_t Count(char*, size_t, size_t size, void* bytes) {
    *static_cast<size_t*>(bytes) += size;
    return size;
  }

  // Without a limit if `limit` is zero.
  void Begin(Request* request, Duration limit) {
    const auto limit_ms = std::chrono::duration_cast<std::chrono::milliseconds>(limit).count();
    request->easy = curl_easy_init();
    curl_easy_setopt(request->easy, CURLOPT_URL, listener_.url().c_str());
    curl_easy_setopt(request->easy, CURLOPT_PROXY, "");
    curl_easy_setopt(request->easy, CURLOPT_TIMEOUT_MS, static_cast<long>(limit_ms));
    curl_easy_setopt(request->easy, CURLOPT_WRITEFUNCTION, &Count);
    curl_easy_setopt(request->easy, CURLOPT_WRITEDATA, &request->bytes);
    curl_multi_add_handle(multi_, request->easy);
  }

  // The requests have come to the server, in this order.  A younger one has the lower descriptor, so
  // that the order of descriptors is not that of the requests.
  void Send(size_t count) {
    requests_.resize(count);
    std::vector<UniqueFd> places;
    for (size_t i = 1; i < count; ++i) places.emplace_back(dup(listener_.fd()));
    for (Request& request : requests_) {
      Begin(&request, Duration::zero());
      RunUntilReadable(listener_.fd());
      request.server_end = listener_.Accept();
      RunUntilReadable(request.server_end.get());
      if (!places.empty()) places.pop_back();
    }
  }
  void Answer(const Request& request) {
    EXPECT_EQ(send(request.server_end.get(), kAnswer.data(), kAnswer.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(kAnswer.size()));
  }
  void RunUntilReadable(int fd) {
    const Duration end = cachecore::Clock::Monotonic().Now() + kDeadline;
    pollfd other{fd, POLLIN, 0};
    do {
      ASSERT_LT(cachecore::Clock::Monotonic().Now(), end);
      sockets_.Wait({&other, 1}, kDeadline);
      sockets_.Serve();
    } while (other.revents == 0);
  }
  // The request that has ended, or nothing.
  CURL* Ended() {
    int left = 0;
    const CURLMsg* message = curl_multi_info_read(multi_, &left);
    return message == nullptr ? nullptr : message->easy_handle;
  }

  CURLM* const multi_ = (curl_global_init(CURL_GLOBAL_DEFAULT), curl_multi_init());
  HttpSockets sockets_{multi_};
  Listener listener_;
  std::vector<Request> requests_;
};

TEST_F(HttpSocketsTest, ARequestEndsBeforeBytesOfYoungerOnesAreRead) {
  Send(3);
  for (const size_t i : {2u, 0u, 1u}) Answer(requests_[i]);
  for (size_t i = 0; i < requests_.size(); ++i) {
    sockets_.Wait({}, kDeadline);
    sockets_.Serve();
    EXPECT_EQ(Ended(), requests_[i].easy) << i;
    for (size_t younger = i + 1; younger < requests_.size(); ++younger) {
      EXPECT_EQ(requests_[younger].bytes, 0u) << younger;
    }
  }
}

TEST_F(HttpSocketsTest, TheCallersDescriptorsAreSeenBetweenTwoSockets) {
  Send(2);
  for (const Request& request : requests_) Answer(request);
  sockets_.Wait({}, kDeadline);
  sockets_.Serve();
  UniqueFd client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  ASSERT_EQ(getsockname(listener_.fd(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  ASSERT_EQ(connect(client.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  pollfd other{listener_.fd(), POLLIN, 0};
  sockets_.Wait({&other, 1}, kDeadline);
  EXPECT_EQ(other.revents, POLLIN);
  EXPECT_EQ(requests_[1].bytes, 0u);
}

TEST_F(HttpSocketsTest, ASocketThatIsClosedWhileItWaitsForItsTurnIsNotServed) {
  Send(3);
  for (const Request& request : requests_) Answer(request);
  sockets_.Wait({}, kDeadline);
  curl_multi_remove_handle(multi_, requests_[1].easy);  // Closes the connection.
  for (const size_t i : {0u, 2u}) {
    EXPECT_TRUE(sockets_.Serve());
    EXPECT_EQ(Ended(), requests_[i].easy) << i;
    sockets_.Wait({}, Duration::zero());
  }
  EXPECT_FALSE(sockets_.Serve());
  EXPECT_EQ(requests_[1].bytes, 0u);
}

TEST_F(HttpSocketsTest, WakeEndsOneWait) {
  sockets_.Wake();
  sockets_.Wake();
  sockets_.Wait({}, kDeadline);
  const Duration begin = cachecore::Clock::Monotonic().Now();
  sockets_.Wait({}, std::chrono::milliseconds(20));
  EXPECT_GE(cachecore::Clock::Monotonic().Now() - begin, std::chrono::milliseconds(20));
}

TEST_F(HttpSocketsTest, LibcurlsTimerEndsAWait) {
  requests_.resize(1);
  Begin(&requests_[0], std::chrono::milliseconds(50));
  const Duration begin = cachecore::Clock::Monotonic().Now();
  CURL* ended = nullptr;
  // Nothing else ends the last wait: the listener accepts no connection and sends nothing.
  while (ended == nullptr && cachecore::Clock::Monotonic().Now() - begin < kDeadline) {
    sockets_.Wait({}, kDeadline);
    sockets_.Serve();
    ended = Ended();
  }
  EXPECT_EQ(ended, requests_[0].easy);
  EXPECT_LT(cachecore::Clock::Monotonic().Now() - begin, kDeadline);
}

// Its caller starts the successor of an ended transfer before bytes of the others are read.
TEST(HttpEngineTest, ARunEndsWithTheFirstTransferThatHasEnded) {
  constexpr std::string_view kPart =
      "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-0/5\r\nContent-Length: 1\r\n\r\nb";
  const Listener listener;
  HttpEngine engine{HttpOptions()};
  HttpSite site;
  site.base_url = listener.url();
  HttpBackend backend(site, &engine);
  size_t ended = 0;
  std::vector<std::unique_ptr<Transfer>> probes;
  std::vector<UniqueFd> server_ends;
  const auto run_until_readable = [&engine](int fd) {
    const Duration end = cachecore::Clock::Monotonic().Now() + kDeadline;
    pollfd other{fd, POLLIN, 0};
    do {
      ASSERT_LT(cachecore::Clock::Monotonic().Now(), end);
      engine.Run();
      engine.Wait({&other, 1}, kDeadline);
    } while (other.revents == 0);
  };
  for (int i = 0; i < 2; ++i) {
    probes.push_back(backend.Probe("x", false, [&ended](ProbeResult) { ++ended; }));
    run_until_readable(listener.fd());
    server_ends.push_back(listener.Accept());
    run_until_readable(server_ends.back().get());
  }
  for (const UniqueFd& server_end : server_ends) {
    ASSERT_EQ(send(server_end.get(), kPart.data(), kPart.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(kPart.size()));
  }
  for (size_t i = 1; i <= probes.size(); ++i) {
    engine.Wait({}, kDeadline);
    engine.Run();
    ASSERT_EQ(ended, i);
  }
}

}  // namespace
}  // namespace fetcher
