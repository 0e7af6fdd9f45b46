#include "fetcher/http/http_answer.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace fetcher {
namespace {

using Kind = Failure::Kind;

constexpr char kUrl[] = "http://h/x";
const ObjectVersion kVersion{1000, {"etag", "\"a\""}};

HttpAnswer Partial() {
  HttpAnswer answer;
  answer.status = 206;
  answer.content_range = "bytes 0-99/1000";
  answer.etag = "\"a\"";
  answer.content_length = 100;
  return answer;
}

std::optional<Failure> Fetch(const HttpAnswer& answer, const ObjectVersion& version = kVersion) {
  return JudgeFetch(answer, {0, 100}, version, kUrl);
}

TEST(HttpAnswerTest, TheRightPartOfTheRightVersionIsTaken) { EXPECT_FALSE(Fetch(Partial())); }

TEST(HttpAnswerTest, APartMayBeShorterThanAskedForButNotElsewhereOrLonger) {
  HttpAnswer answer = Partial();
  answer.content_range = "bytes 0-49/1000";
  EXPECT_FALSE(Fetch(answer));
  for (const char* wrong : {"bytes 1-99/1000", "bytes 0-100/1000", "", "bytes */1000"}) {
    answer.content_range = wrong;
    ASSERT_TRUE(Fetch(answer)) << wrong;
    EXPECT_EQ(Fetch(answer)->kind, Kind::kRetry) << wrong;
  }
}

TEST(HttpAnswerTest, APartOfAnotherVersionIsAChange) {
  HttpAnswer answer = Partial();
  answer.etag = "\"b\"";
  EXPECT_EQ(Fetch(answer)->kind, Kind::kChanged);
  EXPECT_EQ(Fetch(answer)->cause,
            "http://h/x: changed since it was mounted (ETag was \"a\", is \"b\")");
  answer = Partial();
  answer.content_range = "bytes 0-99/1001";
  EXPECT_EQ(Fetch(answer)->cause,
            "http://h/x: changed since it was mounted (size was 1000, is 1001)");
}

TEST(HttpAnswerTest, APartWithoutAValidatorIsTaken) {
  HttpAnswer answer = Partial();
  answer.etag.clear();
  answer.content_range = "bytes 0-99/*";
  EXPECT_FALSE(Fetch(answer));
}

TEST(HttpAnswerTest, TheWholeMeansAChangeUnlessItsValidatorIsThePin) {
  HttpAnswer answer;
  answer.status = 200;
  answer.content_length = 1000;
  EXPECT_EQ(Fetch(answer)->cause,
            "http://h/x: changed since it was mounted (ETag was \"a\", is none)");
  answer.etag = "\"a\"";
  EXPECT_EQ(Fetch(answer)->kind, Kind::kRefused);
  answer.content_length = 999;
  EXPECT_EQ(Fetch(answer)->kind, Kind::kChanged);
}

TEST(HttpAnswerTest, WithoutAPinTheWholeOfTheSameSizeIsAMissingRange) {
  HttpAnswer answer;
  answer.status = 200;
  answer.content_length = 1000;
  EXPECT_EQ(Fetch(answer, {1000, {}})->kind, Kind::kRefused);
  answer.content_length = 5;
  EXPECT_EQ(Fetch(answer, {1000, {}})->kind, Kind::kChanged);
}

TEST(HttpAnswerTest, StatusesAreSortedIntoPassingAndLasting) {
  const struct {
    int status;
    Kind kind;
    int error;
  } kCases[] = {
      {404, Kind::kRefused, ENOENT}, {410, Kind::kRefused, ENOENT}, {401, Kind::kRefused, EACCES},
      {403, Kind::kRefused, EACCES}, {400, Kind::kRefused, EIO},    {304, Kind::kRefused, EIO},
      {501, Kind::kRefused, EIO},    {408, Kind::kRetry, EIO},      {429, Kind::kRetry, EIO},
      {500, Kind::kRetry, EIO},      {503, Kind::kRetry, EIO},      {504, Kind::kRetry, EIO}};
  for (const auto& c : kCases) {
    HttpAnswer answer;
    answer.status = c.status;
    ASSERT_TRUE(Fetch(answer)) << c.status;
    EXPECT_EQ(Fetch(answer)->kind, c.kind) << c.status;
    EXPECT_EQ(Fetch(answer)->error, c.error) << c.status;
  }
}

TEST(HttpAnswerTest, RetryAfterIsHonouredUpToItsCap) {
  HttpAnswer answer;
  answer.status = 429;
  answer.retry_after = std::chrono::seconds(7);
  EXPECT_EQ(Fetch(answer)->retry_after, std::chrono::seconds(7));
  answer.retry_after = std::chrono::hours(1);
  EXPECT_EQ(Fetch(answer)->retry_after, std::chrono::seconds(30));
}

TEST(HttpAnswerTest, AProbePinsTheStrongestValidator) {
  HttpAnswer answer = Partial();
  answer.content_range = "bytes 0-0/77";
  answer.last_modified = "Sun, 06 Nov 1994 08:49:37 GMT";
  const auto pin_of = [&] {
    const ProbeResult result = JudgeProbe(answer, kUrl);
    return std::get<ObjectVersion>(result).pin;
  };
  EXPECT_EQ(pin_of(), (Pin{"etag", "\"a\""}));
  answer.etag = "W/\"a\"";
  answer.date = "Sun, 06 Nov 1994 08:50:37 GMT";
  EXPECT_EQ(pin_of(), (Pin{"last_modified", answer.last_modified}));
  answer.last_modified.clear();
  EXPECT_EQ(pin_of(), (Pin{"weak_etag", "W/\"a\""}));
  answer.etag.clear();
  EXPECT_EQ(pin_of(), Pin());
}

TEST(HttpAnswerTest, ADateThatIsYoungerThanAMinuteIsWeak) {
  HttpAnswer answer;
  answer.last_modified = "Sun, 06 Nov 1994 08:49:37 GMT";
  for (const char* date : {"", "nonsense", "Sun, 06 Nov 1994 08:49:37 GMT",
                           "Sun, 06 Nov 1994 08:50:36 GMT", "Sun, 06 Nov 1994 07:00:00 GMT"}) {
    answer.date = date;
    EXPECT_EQ(PinOf(answer), (Pin{"weak_last_modified", answer.last_modified})) << date;
    EXPECT_EQ(IfRangeValue(PinOf(answer)), "");
  }
  answer.date = "Sun, 06 Nov 1994 08:50:37 GMT";
  EXPECT_EQ(IfRangeValue(PinOf(answer)), answer.last_modified);
}

TEST(HttpAnswerTest, AWeakValidatorIsComparedInEachAnswer) {
  HttpAnswer answer = Partial();
  answer.last_modified = "Sun, 06 Nov 1994 08:49:37 GMT";
  const ObjectVersion version{1000, {"weak_last_modified", answer.last_modified}};
  EXPECT_FALSE(Fetch(answer, version));
  answer.last_modified = "Sun, 06 Nov 1994 08:49:38 GMT";
  EXPECT_EQ(Fetch(answer, version)->kind, Kind::kChanged);
  EXPECT_EQ(Fetch(Partial(), {1000, {"weak_etag", "W/\"a\""}})->kind, Kind::kChanged);
}

TEST(HttpAnswerTest, WhatIsNoAnswerToARangeIsTriedAgain) {
  HttpAnswer page;
  page.status = 200;
  page.content_length = 17;
  page.content_type = "text/html; charset=utf-8";
  EXPECT_EQ(Fetch(page)->kind, Kind::kRetry);
  EXPECT_EQ(Fetch(page)->cause, "http://h/x: answered with an HTML page");
  // The httpd of busybox calls everything that it does not know so.
  HttpAnswer part = Partial();
  part.content_type = "text/html";
  EXPECT_FALSE(Fetch(part));
  part.etag = "\"b\"";
  EXPECT_EQ(Fetch(part)->kind, Kind::kChanged);
  HttpAnswer nothing;
  nothing.status = 200;
  nothing.content_length = 0;
  EXPECT_EQ(Fetch(nothing)->kind, Kind::kRetry);
  HttpAnswer beyond;
  beyond.status = 416;
  EXPECT_EQ(Fetch(beyond)->kind, Kind::kRetry);
  beyond.content_range = "bytes */1000";
  EXPECT_EQ(Fetch(beyond)->kind, Kind::kRetry);
  beyond.content_range = "bytes */50";
  EXPECT_EQ(Fetch(beyond)->kind, Kind::kChanged);
}

TEST(HttpAnswerTest, AnEncodedAnswerIsNamedAsThat) {
  HttpAnswer answer = Partial();
  answer.content_encoding = "gzip";
  const std::string cause =
      "http://h/x: origin encodes the object's content (Content-Encoding: gzip)";
  EXPECT_EQ(Fetch(answer)->cause, cause);
  answer.status = 200;
  EXPECT_EQ(Fetch(answer)->cause, cause);
  EXPECT_EQ(std::get<Failure>(JudgeProbe(answer, kUrl)).cause, cause);
}

TEST(HttpAnswerTest, AnEndlessValidatorIsRefused) {
  HttpAnswer answer = Partial();
  answer.content_range = "bytes 0-0/77";
  answer.etag = '"' + std::string(2000, 'a') + '"';
  const ProbeResult result = JudgeProbe(answer, kUrl);
  EXPECT_EQ(std::get<Failure>(result).kind, Kind::kRefused);
}

}  // namespace
}  // namespace fetcher
