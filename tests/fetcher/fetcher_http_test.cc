// What the fetcher makes of an HTTP origin's answers, seen from the daemon.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <fstream>

#include "cachecore/limits.h"
#include "fetcher/object_attr.h"
#include "tests/fetcher/fetcher_fixture.h"

namespace fetcher {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;
using Lines = std::vector<std::string>;

constexpr uint64_t kPage = 64 << 10;

std::string AttrLine(uint32_t object, const std::string& json) {
  return cachecore::wire::FormatCommand(cachecore::wire::AttrCommand{{object}, json});
}

class FetcherHttpTest : public FetcherTest {
 protected:
  std::string At(uint64_t offset, uint64_t length) { return body_.substr(offset, length); }

  ScriptedOrigin origin_{body_};
  // The attr that an open object at origin_ has.
  std::string attr_ = R"({"pins":{")" + origin_.url() + R"(":{"etag":"\"one\""}},"size":)" +
                      std::to_string(body_.size()) + "}";
};

// ---- Long names

TEST_F(FetcherHttpTest, AUrlOf16KiBIsFetchedAndItsFailureIsSaid) {
  const std::string long_path(cachecore::kUrlBytesMax - origin_.url().size() - 1, 'p');
  const std::string query = "?" + std::string(cachecore::kQueryBytesMax - 1, 'q');
  SetSource({origin_.url() + long_path + "/"}, R"(,"query":")" + query + "\"");
  Start();
  OpenObject();
  EXPECT_EQ(origin_.requests().back().target, "/" + long_path + "/x" + query);
  origin_.Always(Misbehaviour{.status = 502});
  daemon_.Read(1, 1, 0, kPage);
  const std::string cause = daemon_.NextLine();
  EXPECT_LE(cause.size(), cachecore::wire::kMaxCauseSize);
  EXPECT_THAT(cause, StartsWith("cause 1," + origin_.url() + "ppp"));
  EXPECT_THAT(cause, HasSubstr("ppp/x: 502 Bad Gateway"));
}

// ---- The good path
// -------------------------------------------------------------------------------

TEST_F(FetcherHttpTest, OpenLearnsTheSizeAndPinsTheEtag) {
  SetSource({origin_.url()});
  Start();
  daemon_.Open(0, 1, "v", "x");
  EXPECT_EQ(daemon_.NextLine(), AttrLine(1, attr_));
  EXPECT_EQ(daemon_.NextLine(), "copen 0,262144");
  ASSERT_EQ(origin_.requests().size(), 1u);
  EXPECT_EQ(origin_.requests()[0].target, "/x");
  EXPECT_EQ(origin_.requests()[0].range, "bytes=0-0");
}

TEST_F(FetcherHttpTest, AReadIsFetchedDeclaredAndCompleted) {
  SetSource({origin_.url()});
  Start();
  OpenObject();
  daemon_.Read(7, 1, kPage, kPage);
  EXPECT_THAT(FinishRead("cread 1,7"), ElementsAre("filled 1,65536,65536"));
  EXPECT_EQ(daemon_.Data(1, {kPage, 2 * kPage}), At(kPage, kPage));
  EXPECT_EQ(origin_.requests()[1].range, "bytes=65536-131071");
  EXPECT_EQ(origin_.requests()[1].if_range, "\"one\"");
}

TEST_F(FetcherHttpTest, ThePieceAtTheEndOfTheObjectEndsWithIt) {
  body_ = RandomBytes(10'001);
  origin_.Replace(body_, "\"one\"");
  SetSource({origin_.url()});
  Start();
  OpenObject();
  daemon_.Read(1, 1, 8192, 10'001 - 8192);
  EXPECT_THAT(FinishRead("cread 1,1"), ElementsAre("filled 1,8192,1809"));
  EXPECT_EQ(daemon_.Data(1, {8192, 10'001}), body_.substr(8192));
  EXPECT_EQ(daemon_.DataSize(1), 10'001u);
}

TEST_F(FetcherHttpTest, AnObjectKnownByItsAttrIsOpenedWithoutAskingAnyOrigin) {
  SetSource({origin_.url()});
  Start();
  daemon_.Open(3, 1, "v", "x", attr_);
  EXPECT_EQ(daemon_.NextLine(), "copen 3,262144");
  EXPECT_THAT(origin_.requests(), IsEmpty());
  daemon_.Read(4, 1, 0, 4096);
  FinishRead("cread 1,4");
  ASSERT_EQ(origin_.requests().size(), 1u);
  EXPECT_EQ(origin_.requests()[0].if_range, "\"one\"");
}

TEST_F(FetcherHttpTest, AnAttrThatIsNotOursIsLearntAnew) {
  SetSource({origin_.url()});
  Start();
  daemon_.Open(3, 1, "v", "x", "{\"size\":-1}");
  EXPECT_EQ(daemon_.NextLine(), AttrLine(1, attr_));
  EXPECT_EQ(daemon_.NextLine(), "copen 3,262144");
}

TEST_F(FetcherHttpTest, AdjacentReadsShareARequest) {
  options_.connections = 1;
  SetSource({origin_.url()});
  Start();
  OpenObject();
  origin_.Then({.stall = true});  // Holds the only connection while the others queue up.
  daemon_.Read(1, 1, 3 * kPage, kPage);
  daemon_.WaitUntil([&] { return origin_.requests().size() == 2; });
  daemon_.Read(2, 1, 0, kPage);
  daemon_.Read(3, 1, kPage, kPage);
  Lines ended;
  for (int i = 0; i < 3; ++i) ended.push_back(daemon_.LinesUntil("cread").back());
  EXPECT_THAT(ended, testing::UnorderedElementsAre("cread 1,1", "cread 1,2", "cread 1,3"));
  Lines ranges;
  for (const OriginRequest& request : origin_.requests()) ranges.push_back(request.range);
  EXPECT_THAT(ranges, Contains("bytes=0-131071"));
  EXPECT_EQ(daemon_.Data(1, {0, body_.size()}).substr(0, 2 * kPage), At(0, 2 * kPage));
}

TEST_F(FetcherHttpTest, OneBigReadIsSpreadOverTheConnections) {
  body_ = RandomBytes(4 * kMiB);
  origin_.Replace(body_, "\"one\"");
  SetSource({origin_.url()});
  Start();
  OpenObject();
  daemon_.Read(1, 1, 0, 4 * kMiB);
  const Lines filled = FinishRead("cread 1,1");
  EXPECT_EQ(origin_.requests().size(), 1u + 4u);
  EXPECT_EQ(filled.size(), 16u);  // Every 256 KiB.
  EXPECT_EQ(daemon_.Data(1, {0, 4 * kMiB}), body_);
}

TEST_F(FetcherHttpTest, QueryAndCredentialsAreSentButNeverShown) {
  const std::string secret = "http://me:hidden@127.0.0.1:" + std::to_string(origin_.port()) + "/";
  SetSource({secret}, R"(,"query":"?token=hidden2")");
  Start();
  OpenObject();
  EXPECT_EQ(origin_.requests()[0].target, "/x?token=hidden2");
  EXPECT_THAT(origin_.requests()[0].authorization, StartsWith("Basic "));
  origin_.Always(Misbehaviour{.status = 404});
  daemon_.Read(1, 1, 0, 4096);
  EXPECT_EQ(daemon_.NextLineBut("attr"), "cause 1," + origin_.url() + "x: 404 Not Found");
  for (const std::string& packet : daemon_.packets()) EXPECT_THAT(packet, Not(HasSubstr("hidden")));
}

// ---- OPENs that are refused
// ----------------------------------------------------------------------

struct RefusedOpen {
  Misbehaviour misbehaviour;
  std::string copen;
  std::string reason;
};

TEST_F(FetcherHttpTest, ARefusedOpenSaysWhy) {
  const RefusedOpen kCases[] = {
      {{.status = 404}, "copen 0,-2", "404 Not Found"},
      {{.status = 410}, "copen 0,-2", "410 Gone"},
      {{.status = 403}, "copen 0,-13", "403 Forbidden"},
      {{.status = 401}, "copen 0,-13", "401 Unauthorized"},
      {{.status = 418}, "copen 0,-5", "HTTP status 418"},
      {{.status = 503}, "copen 0,-110", "503 Service Unavailable"},
      {{.whole = true}, "copen 0,-95", "origin does not serve ranges"},
      {{.content_range = "bytes 5-5/10"},
       "copen 0,-5",
       "answered bytes 0-4095 with Content-Range \"bytes 5-5/10\""},
      {{.headers = "Content-Encoding: gzip\r\n"},
       "copen 0,-95",
       "origin encodes the object's content (Content-Encoding: gzip)"},
      {{.hang_up = true}, "copen 0,-110", "connection closed early"},
  };
  SetSource({origin_.url()});
  Start();
  for (const RefusedOpen& c : kCases) {
    SCOPED_TRACE(c.reason);
    origin_.Always(c.misbehaviour);
    daemon_.Open(0, 1, "v", "x");
    const Lines lines = daemon_.LinesUntil("copen");
    EXPECT_EQ(lines.back(), c.copen);
    ASSERT_GE(lines.size(), 2u);
    EXPECT_EQ(lines[lines.size() - 2], "cause 0," + origin_.url() + "x: " + c.reason);
  }
}

TEST_F(FetcherHttpTest, TheCauseTravelsInThePacketOfTheRefusal) {
  origin_.Always(Misbehaviour{.status = 404});
  SetSource({origin_.url()});
  Start();
  daemon_.Open(0, 1, "v", "x");
  daemon_.LinesUntil("copen");
  const std::string cause = "cause 0," + origin_.url() + "x: 404 Not Found\n";
  EXPECT_THAT(daemon_.packets(), Contains(HasSubstr(cause + "copen 0,-2\n")));
}

TEST_F(FetcherHttpTest, AnHtmlPageIsNamedAsSuch) {
  origin_.Always(
      Misbehaviour{.headers = "Content-Type: text/html; charset=utf-8\r\n", .whole = true});
  SetSource({origin_.url()});
  Start();
  daemon_.Open(0, 1, "v", "x");
  EXPECT_THAT(daemon_.NextLine(), HasSubstr("HTML page"));
}

TEST_F(FetcherHttpTest, AnEmptyObjectIsOpenedWithSizeZero) {
  origin_.Replace("", "\"none\"");
  SetSource({origin_.url()});
  Start();
  daemon_.Open(0, 1, "v", "x");
  EXPECT_EQ(daemon_.LinesUntil("copen").back(), "copen 0,0");
}

TEST_F(FetcherHttpTest, AnUnreachableOriginIsGivenUpAfterTheOpenBudget) {
  SetSource({"http://127.0.0.1:1/"});
  Start();
  const auto start = std::chrono::steady_clock::now();
  daemon_.Open(0, 1, "v", "x");
  const Lines lines = daemon_.LinesUntil("copen");
  EXPECT_GE(std::chrono::steady_clock::now() - start, options_.fetch.open_retry_budget);
  EXPECT_THAT(lines,
              ElementsAre("cause 0,http://127.0.0.1:1/x: connection refused",
                          "cause 0,http://127.0.0.1:1/x: connection refused", "copen 0,-113"));
}

TEST_F(FetcherHttpTest, TlsToAPlainPortIsAProtocolError) {
  SetSource({"https://127.0.0.1:" + std::to_string(origin_.port()) + "/"});
  Start();
  daemon_.Open(0, 1, "v", "x");
  const Lines lines = daemon_.LinesUntil("copen");
  EXPECT_EQ(lines.back(), "copen 0,-71");
  EXPECT_THAT(lines[0], HasSubstr("x: TLS: "));
}

TEST_F(FetcherHttpTest, RedirectsAreFollowed) {
  ScriptedOrigin door("");
  door.Always(Misbehaviour{.status = 302, .headers = "Location: " + origin_.url() + "x\r\n"});
  SetSource({door.url()});
  Start();
  OpenObject();
  daemon_.Read(1, 1, 0, kPage);
  EXPECT_THAT(FinishRead("cread 1,1"), ElementsAre("filled 1,0,65536"));
  EXPECT_EQ(daemon_.Data(1, {0, kPage}), At(0, kPage));
  EXPECT_EQ(origin_.requests()[1].range, "bytes=0-65535");
}

TEST_F(FetcherHttpTest, ARedirectLoopIsRefusedAtItsBound) {
  origin_.Always(Misbehaviour{.status = 302, .headers = "Location: " + origin_.url() + "x\r\n"});
  SetSource({origin_.url()});
  Start();
  daemon_.Open(0, 1, "v", "x");
  EXPECT_THAT(
      daemon_.LinesUntil("copen"),
      ElementsAre("cause 0," + origin_.url() + "x: more than 5 redirects (ELOOP)", "copen 0,-5"));
  EXPECT_EQ(origin_.requests().size(), 6u);
}

TEST_F(FetcherHttpTest, ARedirectToAFileIsNotFollowed) {
  origin_.Always(Misbehaviour{.status = 302, .headers = "Location: file:///etc/passwd\r\n"});
  SetSource({origin_.url()});
  Start();
  daemon_.Open(0, 1, "v", "x");
  EXPECT_EQ(daemon_.LinesUntil("copen").back(), "copen 0,-5");
}

// ---- Answers that are wrong but may get better
// ---------------------------------------------------

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
  const std::string cause = "cause 0,https://127.0.0.1:" + server.port() + "/x: connecting timed out";
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

TEST_F(FetcherHttpTest, AChangedEtagFailsTheReadAndWritesNothing) {
  SetSource({origin_.url()});
  Start();
  OpenObject();
  origin_.Replace(std::string(body_.size(), 'z'), "\"two\"");
  daemon_.Read(1, 1, 0, kPage);
  const std::string cause =
      "cause 1," + origin_.url() + "x: changed since it was mounted (ETag was \"one\", is \"two\")";
  EXPECT_THAT(daemon_.LinesUntil("cread"),
              ElementsAre(cause + "; asking again", cause, "cread 1,1,116"));
  EXPECT_EQ(origin_.requests().size(), 1u + 3u);
  EXPECT_EQ(daemon_.DataSize(1), 0u);
}

TEST_F(FetcherHttpTest, AnOriginThatIgnoresIfRangeIsCaughtByItsHeaders) {
  SetSource({origin_.url()});
  Start();
  OpenObject();
  origin_.Replace(std::string(body_.size(), 'z'), "\"two\"");
  origin_.Always(Misbehaviour{.ignore_if_range = true});
  daemon_.Read(1, 1, 0, kPage);
  const std::string cause =
      "cause 1," + origin_.url() + "x: changed since it was mounted (ETag was \"one\", is \"two\")";
  EXPECT_THAT(daemon_.LinesUntil("cread"),
              ElementsAre(cause + "; asking again", cause, "cread 1,1,116"));
  EXPECT_EQ(daemon_.DataSize(1), 0u);
}

TEST_F(FetcherHttpTest, AnotherTotalIsAChangeWhereThereIsNoValidator) {
  origin_.Replace(body_, "");
  SetSource({origin_.url()});
  Start();
  OpenObject();
  origin_.Always(Misbehaviour{.content_range = "bytes 0-65535/262145"});
  daemon_.Read(1, 1, 0, kPage);
  const std::string cause = "cause 1," + origin_.url() +
                            "x: changed since it was mounted (size was 262144, is 262145)";
  EXPECT_THAT(daemon_.LinesUntil("cread"),
              ElementsAre(cause + "; asking again", cause, "cread 1,1,116"));
  EXPECT_EQ(daemon_.DataSize(1), 0u);
}

TEST_F(FetcherHttpTest, OneAnswerThatSaysOtherwiseIsNoChange) {
  SetSource({origin_.url()});
  Start();
  OpenObject();
  const Misbehaviour kOdd[] = {
      {.content_range = "bytes 0-65535/262145"},
      {.status = 416},
      {.status = 416, .content_range = "bytes */17"},
      {.headers = "Content-Type: text/html\r\n", .whole = true},
  };
  uint32_t id = 0;
  for (const Misbehaviour& odd : kOdd) {
    SCOPED_TRACE(id);
    origin_.Then(odd);
    daemon_.Read(++id, 1, 0, kPage);
    EXPECT_THAT(FinishRead("cread 1," + std::to_string(id)), ElementsAre("filled 1,0,65536"));
  }
  EXPECT_EQ(daemon_.Data(1, {0, kPage}), At(0, kPage));
}

TEST_F(FetcherHttpTest, AFirstByteThatIsRefusedIsAskedForAsAnOrdinaryRange) {
  SetSource({origin_.url()});
  Start();
  for (const Misbehaviour& odd :
       {Misbehaviour{.status = 416}, Misbehaviour{.status = 400}, Misbehaviour{.whole = true},
        Misbehaviour{.content_range = "bytes 0-1/262144"}}) {
    origin_.Then(odd);
    daemon_.Open(0, 1, "v", "x");
    EXPECT_EQ(daemon_.LinesUntil("copen").back(), "copen 0,262144");
    EXPECT_EQ(origin_.requests().back().range, "bytes=0-4095");
  }
}

TEST_F(FetcherHttpTest, AnOriginThatTakesNoIfRangeIsAskedWithoutIt) {
  SetSource({origin_.url()});
  Start();
  OpenObject();
  origin_.Then({.whole = true});
  daemon_.Read(1, 1, 0, kPage);
  EXPECT_THAT(FinishRead("cread 1,1"), ElementsAre("filled 1,0,65536"));
  EXPECT_EQ(origin_.requests().back().if_range, "");
}

TEST_F(FetcherHttpTest, ASourceThatHasChangedIsTakenWhenTheOldOneIsRefused) {
  ScriptedOrigin second(body_, "\"second\"");
  SetSource({origin_.url()});
  Start();
  OpenObject();
  SetSource({second.url()});
  origin_.Always(Misbehaviour{.status = 403});
  daemon_.Read(1, 1, 0, kPage);
  EXPECT_EQ(daemon_.LinesUntil("close").back(), "close 1");
  daemon_.Open(2, 2, "v", "x", attr_);  // As the daemon does for a READ that it still has.
  EXPECT_EQ(daemon_.LinesUntil("copen").back(), "copen 2,262144");
  daemon_.Read(3, 2, 0, kPage);
  const Lines lines = daemon_.LinesUntil("cread");
  EXPECT_EQ(lines.back(), "cread 2,3");
  // The pin of the origin that is not used any more is not kept.
  EXPECT_EQ(lines.front(), AttrLine(2, R"({"pins":{")" + second.url() +
                                           R"(":{"etag":"\"second\""}},"size":262144})"));
}

TEST_F(FetcherHttpTest, AnOriginThatHasRefusedIsAskedForLaterReads) {
  ScriptedOrigin second(body_, "\"second\"");
  SetSource({origin_.url(), second.url()});
  Start();
  OpenObject();
  origin_.Then({.status = 404});
  daemon_.Read(1, 1, 0, kPage);
  EXPECT_EQ(daemon_.LinesUntil("cread").back(), "cread 1,1");
  second.Always(Misbehaviour{.hang_up = true});
  daemon_.Read(2, 1, kPage, kPage);
  EXPECT_EQ(daemon_.LinesUntil("cread").back(), "cread 1,2");
  EXPECT_EQ(daemon_.Data(1, {kPage, 2 * kPage}), At(kPage, kPage));
}

TEST_F(FetcherHttpTest, LastModifiedIsThePinWhereThereIsNoStrongEtag) {
  const std::string date = "Sun, 06 Nov 1994 08:49:37 GMT";
  origin_.Replace(body_, "W/\"weak\"");
  origin_.Then({.headers = "Last-Modified: " + date + "\r\nDate: Sun, 06 Nov 1994 09:00:00 GMT\r\n"});
  SetSource({origin_.url()});
  Start();
  daemon_.Open(0, 1, "v", "x");
  EXPECT_EQ(daemon_.NextLine(),
            AttrLine(1, R"({"pins":{")" + origin_.url() + R"(":{"last_modified":")" + date +
                            R"("}},"size":262144})"));
  daemon_.LinesUntil("copen");
  origin_.Then({.headers = "Last-Modified: " + date + "\r\n", .ignore_if_range = true});
  daemon_.Read(1, 1, 0, kPage);
  EXPECT_THAT(FinishRead("cread 1,1"), ElementsAre("filled 1,0,65536"));
  EXPECT_EQ(origin_.requests()[1].if_range, date);
}

TEST_F(FetcherHttpTest, A416InTheMiddleMeansThatTheObjectHasShrunk) {
  SetSource({origin_.url()});
  Start();
  OpenObject();
  origin_.Replace(body_.substr(0, 1000), "\"one\"");
  daemon_.Read(1, 1, kPage, kPage);
  const std::string cause =
      "cause 1," + origin_.url() + "x: changed since it was mounted (size was 262144, is 1000)";
  EXPECT_THAT(daemon_.LinesUntil("cread"),
              ElementsAre(cause + "; asking again", cause, "cread 1,1,116"));
}

TEST_F(FetcherHttpTest, AnOriginThatStopsServingRangesIsNotCalledChanged) {
  SetSource({origin_.url()});
  Start();
  OpenObject();
  origin_.Always(Misbehaviour{.whole = true});
  daemon_.Read(1, 1, 0, kPage);
  EXPECT_EQ(daemon_.NextLine(), "cause 1," + origin_.url() + "x: origin does not serve ranges");
  EXPECT_EQ(daemon_.LinesUntil("cread").back(), "cread 1,1,5");
}

TEST_F(FetcherHttpTest, A404InTheMiddleFailsTheReadWithEioAndTheNextOneAsksAgain) {
  SetSource({origin_.url()});
  Start();
  OpenObject();
  origin_.Always(Misbehaviour{.status = 404});
  daemon_.Read(1, 1, 0, kPage);
  const std::string cause = "cause 1," + origin_.url() + "x: 404 Not Found";
  EXPECT_THAT(daemon_.LinesUntil("cread"), ElementsAre(cause, "cread 1,1,5"));
  origin_.Always(std::nullopt);
  daemon_.Read(2, 1, 0, kPage);
  EXPECT_THAT(FinishRead("cread 1,2"), ElementsAre("filled 1,0,65536"));
}

// ---- Several origins
// -----------------------------------------------------------------------------

TEST_F(FetcherHttpTest, TheNextOriginIsPinnedBeforeItsBytesAreDeclared) {
  ScriptedOrigin second(body_, "\"second\"");
  SetSource({origin_.url(), second.url()});
  Start();
  OpenObject();
  origin_.Always(Misbehaviour{.status = 500});
  daemon_.Read(1, 1, 0, kPage);
  const Lines lines = daemon_.LinesUntil("cread");
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0], "cause 1," + origin_.url() + "x: 500 Internal Server Error");
  const auto attr = cachecore::wire::ParseCommand(lines[1]);
  ASSERT_TRUE(attr.ok());
  const auto decoded = DecodeAttr(std::get<cachecore::wire::AttrCommand>(*attr).attr);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->size_bytes, body_.size());
  EXPECT_THAT(decoded->pins,
              testing::UnorderedElementsAre(std::pair(origin_.url(), Pin{"etag", "\"one\""}),
                                            std::pair(second.url(), Pin{"etag", "\"second\""})));
  EXPECT_EQ(lines[2], "filled 1,0,65536");
  EXPECT_EQ(lines[3], "cread 1,1");
  EXPECT_EQ(second.requests()[0].range, "bytes=0-0");
  EXPECT_EQ(second.requests()[1].if_range, "\"second\"");
}

TEST_F(FetcherHttpTest, AnOriginOfAnotherSizeIsNotFailedOverTo) {
  ScriptedOrigin second(body_ + "more", "\"second\"");
  SetSource({origin_.url(), second.url()});
  Start();
  OpenObject();
  origin_.Always(Misbehaviour{.status = 404});
  daemon_.Read(1, 1, 0, kPage);
  const Lines lines = daemon_.LinesUntil("cread");
  EXPECT_EQ(lines.back(), "cread 1,1,116");
  EXPECT_EQ(
      lines[lines.size() - 2],
      "cause 1," + second.url() + "x: changed since it was mounted (size was 262144, is 262148)");
  EXPECT_EQ(daemon_.DataSize(1), 0u);
}

TEST_F(FetcherHttpTest, AChangedOriginGivesWayToOneThatIsUnchanged) {
  ScriptedOrigin second(body_, "\"second\"");
  SetSource({origin_.url(), second.url()});
  Start();
  OpenObject();
  origin_.Replace(RandomBytes(1000), "\"two\"");
  daemon_.Read(1, 1, 0, kPage);
  EXPECT_EQ(daemon_.LinesUntil("cread").back(), "cread 1,1");
  EXPECT_EQ(daemon_.Data(1, {0, kPage}), At(0, kPage));
}

TEST_F(FetcherHttpTest, OpenTakesTheFirstOriginThatAnswers) {
  SetSource({"http://127.0.0.1:1/", origin_.url()});
  Start();
  daemon_.Open(0, 1, "v", "x");
  EXPECT_EQ(daemon_.NextLine(), "cause 0,http://127.0.0.1:1/x: connection refused");
  EXPECT_EQ(daemon_.NextLine(), AttrLine(1, attr_));
  EXPECT_EQ(daemon_.NextLine(), "copen 0,262144");
}

// ---- Our own side
// --------------------------------------------------------------------------------

TEST_F(FetcherHttpTest, AReadWaitsForRoomOnAFullDiskAndIsToldWhy) {
  SetSource({origin_.url()});
  Start();
  const cachecore::UniqueFd full(open("/dev/full", O_WRONLY | O_CLOEXEC));
  daemon_.Send(cachecore::wire::OpenMessage{{0}, {1}, "v", "x", -1, attr_}, full.get());
  daemon_.LinesUntil("copen");
  daemon_.Read(1, 1, 0, kPage);
  EXPECT_THAT(daemon_.LinesUntil("cause"),
              ElementsAre("cause 1,write to /dev/full: No space left on device"));
  // One more that comes while there is no room is told so at once; neither has ended.
  daemon_.Read(2, 1, kPage, kPage);
  EXPECT_THAT(daemon_.LinesUntil("cause"),
              ElementsAre("cause 2,write to /dev/full: No space left on device"));
}

TEST_F(FetcherHttpTest, AReadOutsideItsObjectIsRefused) {
  SetSource({origin_.url()});
  Start();
  OpenObject();
  daemon_.Read(1, 1, body_.size(), 4096);
  EXPECT_EQ(daemon_.LinesUntil("cread").back(), "cread 1,1,22");
  daemon_.Read(2, 99, 0, 4096);
  EXPECT_EQ(daemon_.LinesUntil("cread").back(), "cread 99,2,5");
}

}  // namespace
}  // namespace fetcher
