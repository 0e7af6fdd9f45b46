// What the fetcher makes of an HTTP origin's answers, seen from the daemon.

#include <gmock/gmock.h>

#include <cerrno>
#include <chrono>

#include "cachecore/values/limits.h"
#include "tests/fetcher/engine/fetcher_http_fixture.h"

namespace fetcher {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;
using testing::UnorderedElementsAre;
using Lines = std::vector<std::string>;

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

TEST_F(FetcherHttpTest, AForeignAttrIsReplaced) {
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

TEST_F(FetcherHttpTest, WhatIsWaitedForIsFetchedBeforeReadAhead) {
  options_.connections = 1;
  SetSource({origin_.url()});
  Start();
  OpenObject();
  origin_.Then({.stall = true});  // Holds the only connection while the others queue up.
  daemon_.ReadAhead(1, 1, 0, 4096);
  daemon_.WaitUntil([&] { return origin_.requests().size() == 2; });
  daemon_.ReadAhead(2, 1, 8192, 4096);
  daemon_.ReadAhead(3, 1, 16384, 4096);
  daemon_.Read(4, 1, 32768, 4096);
  Lines ended;
  for (int i = 0; i < 4; ++i) ended.push_back(daemon_.LinesUntil("cread").back());
  EXPECT_EQ(ended.front(), "cread 1,4");
}

TEST_F(FetcherHttpTest, ARefusalCountsForReadAheadAndForWhatOvertookIt) {
  options_.connections = 1;
  SetSource({origin_.url()});
  Start();
  OpenObject();
  origin_.Then({.stall = true});
  daemon_.Read(1, 1, 65536, 4096);
  daemon_.WaitUntil([&] { return origin_.requests().size() == 2; });
  origin_.Always(Misbehaviour{.status = 404});
  daemon_.ReadAhead(2, 1, 0, 4096);
  daemon_.Read(3, 1, 32768, 4096);
  Lines ended;
  for (int i = 0; i < 3; ++i) ended.push_back(daemon_.LinesUntil("cread").back());
  EXPECT_THAT(ended, UnorderedElementsAre("cread 1,1,5", "cread 1,2,5", "cread 1,3,5"));
}

TEST_F(FetcherHttpTest, AReadAfterARefusalOfReadAheadAsksTheOrigin) {
  SetSource({origin_.url()});
  Start();
  OpenObject();
  origin_.Then({.status = 404});
  daemon_.ReadAhead(1, 1, 0, 4096);
  EXPECT_EQ(daemon_.LinesUntil("cread").back(), "cread 1,1,5");
  daemon_.Read(2, 1, 32768, 4096);
  EXPECT_EQ(daemon_.LinesUntil("cread").back(), "cread 1,2");
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
  EXPECT_EQ(daemon_.NextLineBut("attr"),
            "cause 1," + origin_.url() + "x: 404 Not Found; check the URL");
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
      {{.status = 404}, "copen 0,-2", "404 Not Found; check the URL"},
      {{.status = 410}, "copen 0,-2", "410 Gone; check the URL"},
      {{.status = 403},
       "copen 0,-13",
       "403 Forbidden; if it wants credentials, mount its https:// URL with --headers-file"},
      {{.status = 401},
       "copen 0,-13",
       "401 Unauthorized; it wants credentials, which are sent over https only: mount its "
       "https:// URL with --headers-file"},
      {{.status = 418},
       "copen 0,-5",
       "HTTP status 418; the server takes no such request: check the URL, and the server's log"},
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
  const std::string cause = "cause 0," + origin_.url() + "x: 404 Not Found; check the URL\n";
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
      ElementsAre("cause 0," + origin_.url() +
                      "x: more than 5 redirects (ELOOP); mount the URL that they should lead to",
                  "copen 0,-5"));
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

}  // namespace
}  // namespace fetcher
