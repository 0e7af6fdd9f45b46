#include "cli/control_client.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "tests/cli/fake_control_server.h"
#include "tests/cli/temporary_directory.h"

namespace cli {
namespace {

using cachecore::Result;
using nlohmann::json;
using std::chrono::milliseconds;

class ControlClientTest : public testing::Test {
 protected:
  // The answer of a server that sends `bytes` to any request.
  Result<json> Ask(const std::string& bytes, milliseconds timeout = milliseconds(10'000)) {
    FakeControlServer server(socket_, [bytes](const std::string&) { return bytes; });
    return CallControl(socket_, {{"op", "ping"}}, Deadline(timeout));
  }

  TemporaryDirectory box_;
  const std::string socket_ = box_ / "control.sock";
};

TEST_F(ControlClientTest, SendsOneLineAndReadsOne) {
  std::string seen;
  FakeControlServer server(socket_, [&seen](const std::string& request) {
    seen = request;
    return "{\"ok\":true,\"size\":7}\n";
  });
  const Result<json> answer =
      CallControl(socket_, {{"op", "acquire"}, {"object", "a\nb"}}, Deadline(milliseconds(10'000)));
  ASSERT_TRUE(answer.ok()) << answer.status().message();
  EXPECT_EQ((*answer)["size"], 7);
  EXPECT_EQ(seen, R"({"object":"a\nb","op":"acquire"})");
}

TEST_F(ControlClientTest, ALongAnswerComesWhole) {
  const std::string text(3 << 20, 'x');
  const Result<json> answer = Ask("{\"ok\":true,\"text\":\"" + text + "\"}\n");
  ASSERT_TRUE(answer.ok()) << answer.status().message();
  EXPECT_EQ((*answer)["text"], text);
}

TEST_F(ControlClientTest, ARefusalBecomesItsErrnoAndSentence) {
  const Result<json> answer = Ask(R"({"ok":false,"errno":2,"error":"no such thing"})"
                                  "\n");
  EXPECT_EQ(answer.status().error(), ENOENT);
  EXPECT_EQ(answer.status().message(), "no such thing");
}

TEST_F(ControlClientTest, ARefusalWithoutASaneErrnoIsEio) {
  EXPECT_EQ(Ask("{\"ok\":false,\"errno\":-5}\n").status().error(), EIO);
  EXPECT_EQ(Ask("{}\n").status().error(), EIO);
}

TEST_F(ControlClientTest, AnAnswerThatIsNoJsonObjectIsAProtocolError) {
  for (const char* bytes : {"hello\n", "[]\n", "{\"ok\":\n", "\n"}) {
    EXPECT_EQ(Ask(bytes).status().error(), EPROTO) << bytes;
  }
}

TEST_F(ControlClientTest, AServerThatNeverAnswersIsGivenUpInTime) {
  EXPECT_EQ(Ask("", milliseconds(50)).status().error(), ETIMEDOUT);
}

TEST_F(ControlClientTest, NobodyListeningIsSaidWithThePath) {
  const Result<json> missing = CallControl(socket_, json::object(), Deadline(milliseconds(100)));
  EXPECT_EQ(missing.status().error(), ENOENT);
  EXPECT_EQ(missing.status().message(), socket_ + ": No such file or directory");
}

}  // namespace
}  // namespace cli
