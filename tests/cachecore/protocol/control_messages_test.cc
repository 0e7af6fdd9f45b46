#include "cachecore/protocol/control_messages.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "cachecore/base/json_fields.h"

namespace cachecore::control {
namespace {

using nlohmann::json;

// The bytes that older daemons and commands read and write.
TEST(ControlMessagesTest, RequestsHaveTheirNamesOnTheWire) {
  const auto line = [](const Request& request) { return JsonText(EncodeRequest(request)); };
  EXPECT_EQ(line({.operation = Operation::kPing}), R"({"op":"ping"})");
  EXPECT_EQ(line({.operation = Operation::kStatus, .volume = "v", .object = "o"}),
            R"({"object":"o","op":"status","volume":"v"})");
  EXPECT_EQ(line({.operation = Operation::kAcquire,
                  .volume = "v",
                  .object = "o",
                  .timeout_ms = 5,
                  .lend_ms = 7,
                  .replace_stale = false}),
            R"({"lend_ms":7,"object":"o","op":"acquire","replace_stale":false,"timeout_ms":5,)"
            R"("volume":"v"})");
  EXPECT_EQ(line({.operation = Operation::kVerify, .number = 3, .offset = 4096, .length = 8192}),
            R"({"length":8192,"number":3,"offset":4096,"op":"verify"})");
  EXPECT_EQ(line({.operation = Operation::kMounted,
                  .volume = "v",
                  .object = "o",
                  .superblock = "0:57",
                  .shared = {"a", "b"}}),
            R"({"object":"o","op":"mounted","shared":["a","b"],"superblock":"0:57","volume":"v"})");
  EXPECT_EQ(line({.operation = Operation::kLimit, .max = "1G", .min_free = "none"}),
            R"({"max":"1G","min_free":"none","op":"limit"})");
  EXPECT_EQ(line({.operation = Operation::kRemove,
                  .volume = "v",
                  .object = "o",
                  .bytes_only = true,
                  .unless_pinned = true}),
            R"({"bytes_only":true,"object":"o","op":"remove","unless_pinned":true,"volume":"v"})");
  for (const auto& [operation, name] : {std::pair{Operation::kKeep, "keep"},
                                        {Operation::kPin, "pin"},
                                        {Operation::kUnpin, "unpin"},
                                        {Operation::kList, "list"},
                                        {Operation::kRelease, "release"},
                                        {Operation::kShut, "shut"},
                                        {Operation::kStop, "stop"}}) {
    EXPECT_EQ(EncodeRequest({.operation = operation})["op"], name);
  }
}

TEST(ControlMessagesTest, ARequestComesBackAsItWasSent) {
  for (const OperationName& known : kOperations) {
    const Request request = {.operation = known.operation,
                             .volume = "a b",
                             .object = "\n\"\\x",
                             .timeout_ms = 1,
                             .lend_ms = 0,
                             .replace_stale = true,
                             .mount = kPrimary,
                             .superblock = "8:1",
                             .shared = {"x"},
                             .number = UINT64_MAX,
                             .offset = 1,
                             .length = 2,
                             .max = "80%",
                             .min_free = "default",
                             .bytes_only = true,
                             .unless_pinned = true};
    const Result<Request> decoded = DecodeRequest(JsonText(EncodeRequest(request)));
    ASSERT_TRUE(decoded.ok()) << decoded.status().message();
    EXPECT_EQ(*decoded, request) << known.name;
    const Result<Request> plain = DecodeRequest(R"({"op":")" + std::string(known.name) + "\"}");
    ASSERT_TRUE(plain.ok());
    EXPECT_EQ(*plain, Request{.operation = known.operation});
  }
}

TEST(ControlMessagesTest, WhatIsNoRequestIsRefused) {
  for (const char* line : {"", "{", "[]", "7", "{}", R"({"op":7})", R"({"op":null})",
                           R"({"op":{"op":"ping"}})", "\xff", R"({"op":"ping"} x)"}) {
    EXPECT_EQ(DecodeRequest(line).status().error(), EINVAL) << line;
  }
}

TEST(ControlMessagesTest, AnUnknownOperationIsToldTheKnownOnes) {
  for (const char* line : {R"({"op":""})", R"({"op":"nonsense"})", R"({"op":"PING"})"}) {
    const Status status = DecodeRequest(line).status();
    EXPECT_EQ(status.error(), EOPNOTSUPP) << line;
    EXPECT_EQ(status.message(),
              "unknown op; there are ping, status, acquire, keep, mounted, release, shut, verify, "
              "limit, pin, unpin, list, remove, trace, history, stop");
  }
}

TEST(ControlMessagesTest, AFieldOfAnotherTypeHasItsDefault) {
  const Result<Request> request = DecodeRequest(
      R"({"op":"acquire","volume":7,"object":[],"timeout_ms":-1,"lend_ms":"1","replace_stale":1,)"
      R"("number":1.5,"offset":-4,"length":null,"unknown":{}})");
  ASSERT_TRUE(request.ok()) << request.status().message();
  // A mount's question that says nothing else is not allowed to replace.
  EXPECT_EQ(*request, (Request{.operation = Operation::kAcquire, .replace_stale = false}));
}

TEST(ControlMessagesTest, ATimeoutPastTheLastNumberIsTheLargest) {
  const Result<Request> request =
      DecodeRequest(R"({"op":"acquire","timeout_ms":18446744073709551615})");
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request->timeout_ms, INT64_MAX);
}

TEST(ControlMessagesTest, ARefusalIsItsErrnoAndSentence) {
  const json refusal = EncodeRefusal(Status(ENOENT, "no such thing"));
  EXPECT_EQ(JsonText(refusal), R"({"errno":2,"error":"no such thing","ok":false})");
  bool answered = false;
  const Status status = DecodeAnswer(JsonText(refusal), &answered).status();
  EXPECT_TRUE(answered);
  EXPECT_EQ(status.error(), ENOENT);
  EXPECT_EQ(status.message(), "no such thing");
}

TEST(ControlMessagesTest, ARefusalWithoutASaneErrnoIsEio) {
  for (const char* line :
       {"{}", R"({"ok":1})", R"({"ok":false,"errno":0})", R"({"ok":false,"errno":-5})",
        R"({"ok":false,"errno":4294967298})", R"({"ok":false,"errno":"2","error":7})"}) {
    bool answered = false;
    EXPECT_EQ(DecodeAnswer(line, &answered).status().error(), EIO) << line;
    EXPECT_TRUE(answered);
  }
}

TEST(ControlMessagesTest, WhatIsNoAnswerIsAProtocolError) {
  for (const char* line : {"", "hello", "[]", "{\"ok\":", "null"}) {
    bool answered = true;
    EXPECT_EQ(DecodeAnswer(line, &answered).status().error(), EPROTO) << line;
    EXPECT_FALSE(answered);
  }
}

TEST(ControlMessagesTest, AnswersComeBackAsTheyWereSent) {
  EXPECT_EQ(JsonText(EncodeDone()), R"({"ok":true})");
  const PingAnswer ping = DecodePing(EncodePing({7, "1.0"}));
  EXPECT_EQ(ping.pid, 7);
  EXPECT_EQ(ping.version, "1.0");

  const json acquired = EncodeAcquire({.number = 1,
                                       .size_bytes = 2,
                                       .present_bytes = 3,
                                       .stale = true,
                                       .digest = "sha256:00",
                                       .path = "/f/v/o",
                                       .directory = "/f/=1"});
  EXPECT_EQ(JsonText(acquired),
            R"({"digest":"sha256:00","directory":"/f/=1","number":1,"ok":true,"path":"/f/v/o",)"
            R"("present":3,"size":2,"stale":true})");
  const Result<AcquireAnswer> again = DecodeAcquire(acquired);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(EncodeAcquire(*again), acquired);

  const json verified = EncodeVerify({1, 2, 3, 4, "why"});
  EXPECT_EQ(JsonText(verified),
            R"({"checked":1,"healed":3,"next":4,"ok":true,"why":"why","wrong":2})");
  EXPECT_EQ(EncodeVerify(DecodeVerify(verified)), verified);
}

TEST(ControlMessagesTest, AnAcquireWithoutAPathIsAProtocolError) {
  for (const char* answer : {R"({"ok":true})", R"({"ok":true,"path":"/p"})",
                             R"({"ok":true,"path":7,"directory":"/d"})"}) {
    EXPECT_EQ(DecodeAcquire(json::parse(answer)).status().error(), EPROTO) << answer;
  }
}

}  // namespace
}  // namespace cachecore::control
