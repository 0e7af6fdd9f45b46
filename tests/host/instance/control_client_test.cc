#include "host/instance/control_client.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <optional>
#include <string>

#include "cachecore/system/files.h"
#include "host/instance/instance.h"
#include "host/instance/settings.h"
#include "tests/host/instance/fake_control_server.h"
#include "tests/host/instance/temporary_directory.h"

namespace host {
namespace {

using cachecore::Deadline;
using cachecore::Result;
using nlohmann::json;
using std::chrono::milliseconds;

class ControlClientTest : public testing::Test {
 protected:
  // The answer of a server that sends `bytes` to any request.
  Result<json> Ask(const std::optional<std::string>& bytes,
                   milliseconds timeout = milliseconds(10'000), bool* answered = nullptr) {
    FakeControlServer server(socket_, [bytes](const std::string&) { return bytes; });
    return CallControl(socket_, {{"op", "ping"}}, Deadline(timeout), answered);
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

// An instance that is not known to have none is not stopped with its last mount.
TEST_F(ControlClientTest, WhetherAnInstanceHasADeviceIsAskedOrNotKnown) {
  const Instance instance = *Instance::Make(box_.path(), "one");
  ASSERT_TRUE(cachecore::MakeDirectories(instance.RunDir(), 0755).ok());
  EXPECT_FALSE(HasCachefilesDevice(instance).ok()) << "nothing tells it";
  for (const bool has_device : {true, false}) {
    std::string asked;
    FakeControlServer server(instance.ControlSocket(), [&](const std::string& request) {
      asked = request;
      return std::string("{\"ok\":true,\"cachefiles\":") +
             (has_device ? "{\"path\":\"/dev/cachefiles\"}" : "{}") + "}\n";
    });
    const Result<bool> found = HasCachefilesDevice(instance);
    ASSERT_TRUE(found.ok()) << found.status().message();
    EXPECT_EQ(*found, has_device);
    EXPECT_NE(asked.find("\"object\""), std::string::npos) << "not all objects: " << asked;
  }
  // Of one that `holdfast mount` has started the settings tell it.
  for (const bool has_device : {false, true}) {
    Settings settings;
    if (has_device) settings.daemon_flags = {"--cachefiles-device=/dev/cachefiles"};
    ASSERT_TRUE(
        cachecore::WriteFileAtomically(instance.SettingsFile(), settings.ToJson().dump(), 0600)
            .ok());
    const Result<bool> found = HasCachefilesDevice(instance);
    ASSERT_TRUE(found.ok()) << found.status().message();
    EXPECT_EQ(*found, has_device);
  }
}

TEST_F(ControlClientTest, WhetherAnInstanceHasADeviceIsAskedUntilTheDeadline) {
  const Instance instance = *Instance::Make(box_.path(), "one");
  ASSERT_TRUE(cachecore::MakeDirectories(instance.RunDir(), 0755).ok());
  int deaths = 3;
  FakeControlServer server(instance.ControlSocket(),
                           [&](const std::string&) -> std::optional<std::string> {
                             if (deaths-- > 0) return std::nullopt;
                             return "{\"ok\":true,\"cachefiles\":{\"path\":\"/d\"}}\n";
                           });
  EXPECT_FALSE(HasCachefilesDevice(instance, Deadline(milliseconds(0))).ok());
  const Result<bool> found = HasCachefilesDevice(instance, Deadline(milliseconds(30'000)));
  ASSERT_TRUE(found.ok()) << found.status().message();
  EXPECT_TRUE(*found);
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

TEST_F(ControlClientTest, ASocketWithoutAListenerIsNamedByItsPath) {
  const Result<json> missing = CallControl(socket_, json::object(), Deadline(milliseconds(100)));
  EXPECT_EQ(missing.status().error(), ENOENT);
  EXPECT_EQ(missing.status().message(), socket_ + ": No such file or directory");
}

TEST_F(ControlClientTest, ADaemonThatDiesBeforeOrInItsAnswerHasNotAnswered) {
  bool answered = true;
  const Result<json> none = Ask(std::nullopt, milliseconds(10'000), &answered);
  EXPECT_EQ(none.status().error(), ECONNRESET);
  EXPECT_TRUE(none.status().message().starts_with(socket_ + ": ")) << none.status().message();
  EXPECT_FALSE(answered);
  answered = true;
  EXPECT_EQ(Ask("{\"ok\":true,\"si", milliseconds(10'000), &answered).status().error(), EPROTO);
  EXPECT_FALSE(answered);
}

TEST_F(ControlClientTest, ARefusalIsAnAnswer) {
  bool answered = false;
  const Result<json> stranger = Ask("{\"ok\":false,\"errno\":1,\"error\":\"not your daemon\"}\n",
                                    milliseconds(10'000), &answered);
  EXPECT_EQ(stranger.status().error(), EPERM);
  EXPECT_EQ(stranger.status().message(), "not your daemon");
  EXPECT_TRUE(answered);
}

TEST_F(ControlClientTest, APathThatNoSocketCanHaveIsNamed) {
  const std::string path = box_ / std::string(200, 'x');
  const Result<json> answer = CallControl(path, json::object(), Deadline(milliseconds(100)));
  EXPECT_EQ(answer.status().error(), ENAMETOOLONG);
  EXPECT_NE(answer.status().message().find(path), std::string::npos);
}

}  // namespace
}  // namespace host
