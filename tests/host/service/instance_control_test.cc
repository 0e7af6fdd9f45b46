// What host/service asks of a daemon, with one that only pretends.

#include "host/service/instance_control.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cachecore/base/mutex.h"
#include "cachecore/system/files.h"
#include "host/service/live_verify.h"
#include "tests/host/instance/fake_control_server.h"
#include "tests/host/instance/temporary_directory.h"

namespace host {
namespace {

using cachecore::Deadline;
using cachecore::MakeDirectories;
using cachecore::Mutex;
using cachecore::MutexLock;
using cachecore::Result;
using cachecore::Status;
using nlohmann::json;
using Line = std::optional<std::string>;

constexpr std::chrono::milliseconds kTimeout{10'000};
constexpr char kStranger[] = "{\"ok\":false,\"errno\":1,\"error\":\"not your daemon\"}\n";

class InstanceControlTest : public testing::Test {
 protected:
  InstanceControlTest() { EXPECT_TRUE(MakeDirectories(instance_.RunDir(), 0700).ok()); }

  // The daemon gives these answers, one after the other, and the last of them ever after.
  void Run(std::deque<Line> answers) {
    answers_ = std::move(answers);
    server_ = std::make_unique<FakeControlServer>(
        instance_.ControlSocket(), [this](const std::string& line) { return Answer(line); });
  }
  std::vector<json> Asked() {
    MutexLock lock(&mu_);
    return asked_;
  }

  TemporaryDirectory box_;
  const Instance instance_ = *Instance::Make(box_.path(), "t");

 private:
  Line Answer(const std::string& line) {
    MutexLock lock(&mu_);
    asked_.push_back(json::parse(line));
    const Line answer = answers_.front();
    if (answers_.size() > 1) answers_.pop_front();
    return answer;
  }

  Mutex mu_;
  std::vector<json> asked_ GUARDED_BY(mu_);
  std::deque<Line> answers_;                   // The server's thread's.
  std::unique_ptr<FakeControlServer> server_;  // Last: its thread uses all of the above.
};

TEST_F(InstanceControlTest, OnlyAnAnswerToAPingCounts) {
  EXPECT_FALSE(AnswersPing(instance_));  // No socket.
  Run({"{\"ok\":true}\n", kStranger, "{}\n", "pong\n", std::nullopt, "{\"ok\":true}\n"});
  EXPECT_TRUE(AnswersPing(instance_));
  for (int refusal = 0; refusal < 4; ++refusal) EXPECT_FALSE(AnswersPing(instance_)) << refusal;
  EXPECT_TRUE(AnswersPing(instance_));
  for (const json& request : Asked()) EXPECT_EQ(request, json({{"op", "ping"}}));
}

TEST_F(InstanceControlTest, EachReasonWhyADaemonIsNotAskedHasItsCure) {
  EXPECT_EQ(WhyUnasked(instance_, Status(EACCES, "connect")).message(),
            "asking instance t needs root; use sudo");
  for (const int error : {ENOENT, ECONNREFUSED}) {
    const Status why = WhyUnasked(instance_, Status(error, "connect"));
    EXPECT_EQ(why.error(), error);
    EXPECT_TRUE(why.message().starts_with("instance t is not running (")) << why.message();
  }
  EXPECT_EQ(WhyUnasked(instance_, Status(EPROTO, "nonsense")).message(), "nonsense");
}

TEST_F(InstanceControlTest, ADaemonThatAnotherServiceManagerRunsIsUsedAndNotStopped) {
  EXPECT_FALSE(IsRunElsewhere(instance_));
  ASSERT_TRUE(MakeDirectories(instance_.MountsDir(), 0700).ok());
  Run({"{\"ok\":true}\n"});
  EXPECT_TRUE(IsRunElsewhere(instance_));
  const Result<bool> started = EnsureRunning(instance_, Settings(), Deadline(kTimeout));
  ASSERT_TRUE(started.ok()) << started.status().message();
  EXPECT_FALSE(*started);
  const Status stopped = StopInstance(instance_);
  EXPECT_EQ(stopped.error(), EBUSY);
  EXPECT_TRUE(stopped.message().starts_with(
      "instance t was not started by holdfast mount; stop it where it was started"))
      << stopped.message();
  EXPECT_TRUE(AnswersPing(instance_));
}

TEST_F(InstanceControlTest, ACleanStartKeepsWhatTheLastSupervisorHasCounted) {
  CleanStart(instance_);
  EXPECT_FALSE(cachecore::ReadFile(instance_.SuperviseTotals()).ok());
  ASSERT_TRUE(MakeDirectories(instance_.StateDir(), 0700).ok());
  const auto write = [&](const std::string& path, const std::string& text) {
    ASSERT_TRUE(cachecore::WriteFileAtomically(path, text, 0600).ok());
  };
  const auto totals = [&] { return *cachecore::ReadJsonFile(instance_.SuperviseTotals()); };
  write(instance_.SuperviseTotals(), "{\"takeovers\": 1}");
  CleanStart(instance_);  // The last one has left them itself.
  EXPECT_EQ(totals(), json({{"takeovers", 1}}));
  write(instance_.SuperviseStatus(), "{\"takeovers\": ");
  CleanStart(instance_);
  EXPECT_EQ(totals(), json({{"takeovers", 1}}));
  write(instance_.SuperviseStatus(), "{\"takeovers\": 2}");
  CleanStart(instance_);
  EXPECT_EQ(totals(), json({{"takeovers", 2}}));
  EXPECT_FALSE(cachecore::ReadFile(instance_.SuperviseStatus()).ok());
}

class LiveVerifyTest : public InstanceControlTest {
 protected:
  static std::string OneObject() {
    return json({{"ok", true},
                 {"objects",
                  {{{"number", 17},
                    {"volume", "v"},
                    {"name", "o"},
                    {"size", 100},
                    {"digest", "sha256:00"}}}}})
               .dump() +
           "\n";
  }
  static std::string Window(uint64_t next, uint64_t wrong, const std::string& why) {
    return json({{"ok", true},
                 {"checked", 50},
                 {"wrong", wrong},
                 {"healed", 0},
                 {"next", next},
                 {"why", why}})
               .dump() +
           "\n";
  }
  Result<LiveVerifyReport> Verify() {
    return LiveVerify(instance_, "v/o", kTimeout,
                      [this](const auto&, uint64_t done) { progress_.push_back(done); });
  }

  std::vector<uint64_t> progress_;
};

TEST_F(LiveVerifyTest, AnObjectIsGoneThroughInWindows) {
  Run({OneObject(), Window(50, 0, ""), Window(100, 7, "the origin is away")});
  const Result<LiveVerifyReport> report = Verify();
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_EQ(report->checked_bytes, 100u);
  EXPECT_EQ(report->wrong_bytes, 7u);
  EXPECT_EQ(report->error, "the origin is away");
  EXPECT_EQ(report->digest, "sha256:00");
  EXPECT_EQ(progress_, (std::vector<uint64_t>{50, 100}));
  const std::vector<json> asked = Asked();
  ASSERT_EQ(asked.size(), 3u);
  EXPECT_EQ(asked[0]["object"], "o");
  EXPECT_EQ(asked[2]["number"], 17);
  EXPECT_EQ(asked[2]["offset"], 50);
}

TEST_F(LiveVerifyTest, ADaemonThatMakesNoProgressIsNotAskedForEver) {
  Run({OneObject(), Window(0, 0, "")});
  EXPECT_TRUE(Verify().ok());
  EXPECT_EQ(Asked().size(), 2u);
}

TEST_F(LiveVerifyTest, AnUnknownObjectARefusalAndADeadDaemonAreTold) {
  EXPECT_TRUE(Verify().status().message().starts_with("instance t is not running"));
  Run({"{\"ok\":true,\"objects\":[]}\n", OneObject(),
       "{\"ok\":false,\"errno\":95,\"error\":\"there is no digest\"}\n", OneObject(), std::nullopt,
       kStranger});
  EXPECT_EQ(Verify().status().error(), ENOENT);
  EXPECT_EQ(Verify().status().message(), "there is no digest");
  EXPECT_EQ(Verify().status().error(), ECONNRESET);
  EXPECT_EQ(Verify().status().message(), "asking instance t needs root; use sudo");
  EXPECT_TRUE(progress_.empty());
}

}  // namespace
}  // namespace host
