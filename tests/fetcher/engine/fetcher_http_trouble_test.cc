// Answers that are short, wrong, late or missing, and the READs that wait meanwhile.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>

#include "tests/fetcher/engine/fetcher_http_fixture.h"

namespace fetcher {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::StartsWith;
using Lines = std::vector<std::string>;

TEST_F(FetcherHttpTest, AShortBodyKeepsWhatCameAndFetchesTheRest) {
  SetSource({origin_.url()});
  Start();
  OpenObject();
  origin_.Then({.short_by = 5000});
  daemon_.Read(1, 1, 0, kPage);
  Lines causes;
  // 65536 - 5000 = 60536: 14 whole blocks of it count.
  EXPECT_THAT(FinishRead("cread 1,1", &causes),
              ElementsAre("filled 1,0,57344", "filled 1,57344,8192"));
  EXPECT_EQ(daemon_.Data(1, {0, kPage}), At(0, kPage));
  EXPECT_EQ(origin_.requests().back().range, "bytes=57344-65535");
  EXPECT_THAT(causes, ElementsAre("cause 1," + origin_.url() + "x: connection closed early"));
}

TEST_F(FetcherHttpTest, AWrongContentRangeIsNotWrittenAndTriedAgain) {
  for (const char* wrong :
       {"bytes 4096-69631/262144", "bytes 0-262143/262144", "nonsense", "bytes */262144"}) {
    SCOPED_TRACE(wrong);
    SetSource({origin_.url()});
    if (!thread_.joinable()) Start();
    daemon_.Open(0, 1, "v", "x", attr_);
    daemon_.LinesUntil("copen");
    origin_.Then({.content_range = wrong});
    daemon_.Read(1, 1, 0, kPage);
    const std::string cause = daemon_.NextLine();
    EXPECT_EQ(cause, "cause 1," + origin_.url() +
                         "x: answered bytes 0-65535 with Content-Range \"" + wrong + "\"");
    EXPECT_THAT(FinishRead("cread 1,1"), ElementsAre("filled 1,0,65536"));
    EXPECT_EQ(daemon_.Data(1, {0, kPage}), At(0, kPage));
  }
}

TEST_F(FetcherHttpTest, NothingIsTakenBeyondWhatTheContentRangeSays) {
  SetSource({origin_.url()});
  Start();
  OpenObject();
  origin_.Then({.content_range = "bytes 0-4095/262144"});
  daemon_.Read(1, 1, 0, kPage);
  Lines causes;
  EXPECT_THAT(FinishRead("cread 1,1", &causes),
              ElementsAre("filled 1,0,4096", "filled 1,4096,61440"));
  EXPECT_THAT(causes, ElementsAre("cause 1," + origin_.url() + "x: sent more than it said"));
}

TEST_F(FetcherHttpTest, A503IsTriedAgainAfterTheTimeThatItAskedFor) {
  SetSource({origin_.url()});
  Start();
  OpenObject();
  origin_.Then({.status = 503, .headers = "Retry-After: 1\r\n"});
  const auto start = std::chrono::steady_clock::now();
  daemon_.Read(1, 1, 0, kPage);
  EXPECT_EQ(daemon_.NextLine(), "cause 1," + origin_.url() + "x: 503 Service Unavailable");
  EXPECT_THAT(FinishRead("cread 1,1"), ElementsAre("filled 1,0,65536"));
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
}

TEST_F(FetcherHttpTest, ARetryAfterIsHeardWhateverFailsBesideIt) {
  body_ = RandomBytes(2 * kMiB);
  origin_.Replace(body_, "\"one\"");
  SetSource({origin_.url()});
  Start();
  OpenObject();
  for (int i = 0; i < 3; ++i) {  // Which of the two is answered how, and which first, is chance.
    origin_.Then({.status = 503, .headers = "Retry-After: 1\r\n"});
    origin_.Then({.hang_up = true});
    const size_t before = origin_.requests().size();
    const auto start = std::chrono::steady_clock::now();
    daemon_.Read(static_cast<uint32_t>(i) + 1, 1, 0, body_.size());
    daemon_.LinesUntil("cread");
    EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
    EXPECT_EQ(origin_.requests().size(), before + 4);
  }
}

TEST_F(FetcherHttpTest, AnOriginThatIsSlowToAnswerGetsMoreTimeWithEachTry) {
  options_.http.first_byte_timeout = std::chrono::milliseconds(150);
  options_.fetch.open_retry_budget = Duration::zero();
  SetSource({origin_.url()});
  Start();
  origin_.Always(Misbehaviour{.delay_ms = 400});
  OpenObject();
  const size_t tries = origin_.requests().size();
  EXPECT_GE(tries, 2u);
  // What it needed is remembered.
  daemon_.Read(1, 1, 0, kPage);
  EXPECT_THAT(FinishRead("cread 1,1"), ElementsAre("filled 1,0,65536"));
  EXPECT_EQ(origin_.requests().size(), tries + 1);
}

TEST_F(FetcherHttpTest, ABodyMayComeLateAfterItsHeaders) {
  options_.http.first_byte_timeout = std::chrono::milliseconds(150);
  options_.http.low_speed_time = std::chrono::milliseconds(100);
  SetSource({origin_.url()});
  Start();
  OpenObject();
  origin_.Always(Misbehaviour{.body_delay_ms = 400});
  daemon_.Read(1, 1, 0, kPage);
  Lines causes;
  EXPECT_THAT(FinishRead("cread 1,1", &causes), ElementsAre("filled 1,0,65536"));
  EXPECT_THAT(causes, Contains("cause 1," + origin_.url() + "x: no answer within 1 s"));
}

// Accepts, and says nothing.
class MuteServer {
 public:
  MuteServer() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(fd_.get(), 64), 0);
    getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
  }
  std::string port() const { return std::to_string(port_); }

 private:
  const cachecore::UniqueFd fd_;
  uint16_t port_ = 0;
};

TEST_F(FetcherHttpTest, AnOriginThatIsSlowToConnectGetsMoreTimeWithEachTry) {
  const MuteServer server;
  options_.http.connect_timeout = std::chrono::milliseconds(900);
  options_.fetch.open_retry_budget = Duration::zero();
  SetSource({"https://127.0.0.1:" + server.port() + "/"});
  Start();
  daemon_.Open(0, 1, "v", "x");
  const std::string cause =
      "cause 0,https://127.0.0.1:" + server.port() + "/x: connecting timed out";
  EXPECT_EQ(daemon_.NextLine(), cause + " (1 s)");
  EXPECT_EQ(daemon_.NextLine(), cause + " (2 s)");
}

TEST_F(FetcherHttpTest, AReadThatTheDaemonHasWithdrawnIsForgottenWhileTheOriginIsAway) {
  options_.fetch.tell_again = std::chrono::milliseconds(20);
  SetSource({origin_.url()});
  Start();
  OpenObject();
  origin_.Always(Misbehaviour{.status = 503});
  daemon_.Read(1, 1, 0, kPage);
  const std::string cause = "cause 1," + origin_.url() + "x: 503 Service Unavailable";
  EXPECT_EQ(daemon_.NextLine(), cause);
  daemon_.Refuse("cause 1", EINVAL);
  EXPECT_EQ(daemon_.NextLine(), cause);
  daemon_.Read(2, 1, kPage, kPage);
  EXPECT_THAT(daemon_.NextLineBut("cause 1"), StartsWith("cause 2,"));
  origin_.Always(std::nullopt);
  EXPECT_THAT(FinishRead("cread 1,2"), ElementsAre("filled 1,65536,65536"));
}

TEST_F(FetcherHttpTest, AStallIsCutOffAndTriedAgain) {
  SetSource({origin_.url()});
  Start();
  OpenObject();
  origin_.Then({.stall = true, .stall_after = 100});
  daemon_.Read(1, 1, 0, kPage);
  EXPECT_EQ(daemon_.NextLine(),
            "cause 1," + origin_.url() + "x: stalled (under 1024 bytes a second)");
  EXPECT_THAT(FinishRead("cread 1,1"), ElementsAre("filled 1,0,65536"));
}

TEST_F(FetcherHttpTest, WhatASlowOriginHasSentIsDeclaredBeforeTheRestComes) {
  options_.http.gather_time = std::chrono::milliseconds(1);
  SetSource({origin_.url()});
  Start();
  OpenObject();
  origin_.Then({.stall = true, .stall_after = 10'000});
  daemon_.Read(1, 1, 0, kPage);
  // 10000 bytes hold two whole blocks.  The stall is cut off only a second later.
  EXPECT_EQ(daemon_.NextLine(), "filled 1,0,8192");
  EXPECT_EQ(daemon_.Data(1, {0, 8192}), At(0, 8192));
  daemon_.LinesUntil("cread");
  EXPECT_EQ(origin_.requests().back().range, "bytes=8192-65535");
  EXPECT_EQ(daemon_.Data(1, {0, kPage}), At(0, kPage));
}

TEST_F(FetcherHttpTest, AReadFailsWithTheCauseWhenItsBudgetHasRunOut) {
  options_.fetch.retry_budget = std::chrono::milliseconds(150);
  SetSource({origin_.url()});
  Start();
  OpenObject();
  origin_.Always(Misbehaviour{.status = 502});
  const auto start = std::chrono::steady_clock::now();
  daemon_.Read(1, 1, 0, kPage);
  const std::string cause = "cause 1," + origin_.url() + "x: 502 Bad Gateway";
  EXPECT_THAT(daemon_.LinesUntil("cread"), ElementsAre(cause, cause, "cread 1,1,5"));
  EXPECT_GE(std::chrono::steady_clock::now() - start, options_.fetch.retry_budget);
  origin_.Always(std::nullopt);
  daemon_.Read(2, 1, 0, kPage);
  EXPECT_THAT(FinishRead("cread 1,2"), ElementsAre("filled 1,0,65536"));
}

TEST_F(FetcherHttpTest, WithoutABudgetAReadOutlivesAnOutage) {
  SetSource({origin_.url()});
  Start();
  OpenObject();
  origin_.Always(Misbehaviour{.hang_up = true});
  daemon_.Read(1, 1, 0, kPage);
  daemon_.WaitUntil([&] { return origin_.requests().size() > 30; });
  daemon_.Read(2, 1, kPage, kPage);
  EXPECT_THAT(daemon_.NextLine(), StartsWith("cause 1,"));
  EXPECT_THAT(daemon_.NextLine(), StartsWith("cause 2,"));  // Told though it has not been tried.
  origin_.Always(std::nullopt);
  Lines ended;
  for (int i = 0; i < 2; ++i) ended.push_back(daemon_.LinesUntil("cread").back());
  EXPECT_THAT(ended, testing::UnorderedElementsAre("cread 1,1", "cread 1,2"));
}

TEST_F(FetcherHttpTest, AReadThatTheDaemonHasForgottenIsNotTriedForEver) {
  SetSource({origin_.url()});
  Start();
  OpenObject();
  origin_.Always(Misbehaviour{.hang_up = true});
  daemon_.Refuse("cause 1", EINVAL);
  daemon_.Read(1, 1, 0, kPage);
  EXPECT_THAT(daemon_.NextLine(), StartsWith("cause 1,"));
  daemon_.Read(2, 1, 2 * kPage, kPage);
  const auto tries = [&](const std::string& range) {
    size_t count = 0;
    for (const OriginRequest& request : origin_.requests()) count += request.range == range;
    return count;
  };
  daemon_.WaitUntil([&] { return tries("bytes=131072-196607") > 30; });
  EXPECT_LE(tries("bytes=0-65535"), 10u);
}

// ---- Objects that have changed
// -------------------------------------------------------------------

}  // namespace
}  // namespace fetcher
