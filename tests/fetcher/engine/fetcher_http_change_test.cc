// Another version of the object, and the next origin.

#include <fcntl.h>
#include <gmock/gmock.h>

#include "fetcher/transfer/object_attr.h"
#include "tests/fetcher/engine/fetcher_http_fixture.h"

namespace fetcher {
namespace {

using testing::ElementsAre;
using Lines = std::vector<std::string>;

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
  const std::string cause =
      "cause 1," + origin_.url() + "x: changed since it was mounted (size was 262144, is 262145)";
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
  origin_.Then(
      {.headers = "Last-Modified: " + date + "\r\nDate: Sun, 06 Nov 1994 09:00:00 GMT\r\n"});
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
  const std::string cause = "cause 1," + origin_.url() + "x: 404 Not Found; check the URL";
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

TEST_F(FetcherHttpTest, AChangedOriginIsReplacedByAnUnchangedOne) {
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
