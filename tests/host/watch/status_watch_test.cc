#include "host/watch/status_watch.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "cachecore/protocol/control_messages.h"

namespace host {
namespace {

namespace field = cachecore::control::field;
using nlohmann::json;
using std::chrono::seconds;

constexpr int64_t kNow = 1'800'000'000;

json Object(int64_t number, const std::string& name, int64_t present) {
  return {{field::kNumber, number},  {field::kVolume, "v"},      {field::kName, name},
          {field::kSize, 100 << 20}, {field::kPresent, present}, {field::kState, "open"}};
}

json Waiting(int64_t object, int64_t waiters, int64_t age_ms, const std::string& cause) {
  return {{field::kObject, object},
          {field::kWaiters, waiters},
          {field::kAgeMs, age_ms},
          {field::kCause, cause}};
}

// One that serves, and has asked for and fetched so much.
StatusReport Report(const std::string& name, int64_t pid, int64_t reads, int64_t waited,
                    int64_t filled) {
  StatusReport report;
  report.instance = name;
  report.supervisor_pid = 1;
  report.daemon = {
      {field::kPid, pid},
      {field::kStarted, kNow - 7200},
      {field::kFetcher, {{field::kAttached, true}}},
      {field::kObjects, json::array()},
      {field::kRequests,
       {{field::kWaiting, 0}, {field::kOldestMs, 0}, {field::kList, json::array()}}},
      {field::kCounters, {{"reads", reads}, {"reads_waited", waited}, {"bytes_filled", filled}}}};
  return report;
}

std::string Joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

TEST(StatusWatchTest, RatesAreThoseBetweenTwoFrames) {
  StatusWatch watch(false);
  StatusReport report = Report("default", 7, 1000, 100, 0);
  report.daemon[field::kObjects].push_back(Object(16, "a", 10'000'000));
  EXPECT_NE(Joined(watch.Frame({report}, seconds(10), kNow, {})).find("reads -/s"),
            std::string::npos);
  report = Report("default", 7, 3000, 120, 8'000'000);
  report.daemon[field::kObjects].push_back(Object(16, "a", 18'000'000));
  const std::string text = Joined(watch.Frame({report}, seconds(14), kNow, {}));
  EXPECT_NE(text.find("reads 500.0/s, that wait 5.0/s, hits 99.0 %, fetched 2.0 MB/s"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("17.1 %      2.0"), std::string::npos) << text;
  EXPECT_NE(text.find("no read waits"), std::string::npos) << text;
}

TEST(StatusWatchTest, ADaemonThatWasReplacedIsSaidAndMakesNoRates) {
  StatusWatch watch(false);
  (void)watch.Frame({Report("default", 7, 1000, 100, 1'000'000)}, seconds(10), kNow, {});
  const StatusReport next = Report("default", 9, 10, 10, 0);
  const std::string text = Joined(watch.Frame({next}, seconds(12), kNow, {}));
  EXPECT_NE(text.find("the daemon was replaced: pid 7 is now 9"), std::string::npos) << text;
  EXPECT_NE(text.find("reads -/s"), std::string::npos) << text;
  EXPECT_NE(text.find("fetched - MB/s"), std::string::npos) << text;
  EXPECT_EQ(Joined(watch.Frame({next}, seconds(60), kNow, {})).find("replaced"), std::string::npos);
}

TEST(StatusWatchTest, WaitingReadsAreCountedByAgeWithTheCauseOfTheOldest) {
  StatusReport report = Report("default", 7, 0, 0, 0);
  report.daemon[field::kRequests] = {
      {field::kWaiting, 3},
      {field::kOldestMs, 75'000},
      {field::kList,
       {Waiting(16, 2, 300, ""), Waiting(16, 1, 75'000, "http://o/a: connection refused"),
        Waiting(16, 0, 90'000, "nobody waits for it")}}};
  const std::string text = Joined(StatusWatch(false).Frame({report}, seconds(1), kNow, {}));
  EXPECT_NE(text.find("3 reads wait: 2 below 1 s, 1 longer; the oldest 75.0 s"), std::string::npos)
      << text;
  EXPECT_NE(text.find("    http://o/a: connection refused"), std::string::npos) << text;
}

TEST(StatusWatchTest, TheWorstComesFirst) {
  StatusReport dead = Report("z", 0, 0, 0, 0);
  dead.daemon = json::object();
  dead.daemon_error = "it does not answer";
  StatusReport fine = Report("a", 7, 0, 0, 0);
  json failed = Object(18, "failed", 0);
  failed[field::kError] = "HTTP 404";
  fine.daemon[field::kObjects] = {Object(16, "idle", 0), Object(17, "slow", 0), failed};
  fine.daemon[field::kRequests][field::kList] = {Waiting(17, 1, 2000, "")};
  const std::string text = Joined(StatusWatch(false).Frame({fine, dead}, seconds(1), kNow, {}));
  EXPECT_LT(text.find("instance z  NOT SERVING"), text.find("instance a  OK")) << text;
  EXPECT_LT(text.find("v/failed"), text.find("v/slow")) << text;
  EXPECT_LT(text.find("v/slow"), text.find("v/idle")) << text;
}

TEST(StatusWatchTest, AStoppedInstanceIsTheLastAndNoTroubleUnlessItIsNamed) {
  StatusReport stopped;
  stopped.instance = "a";
  stopped.daemon = json::object();
  StatusReport fine = Report("b", 7, 0, 0, 0);
  const std::string text = Joined(StatusWatch(false).Frame({stopped, fine}, seconds(1), kNow, {}));
  EXPECT_NE(text.find("instance a  does not run\n"), std::string::npos) << text;
  EXPECT_LT(text.find("instance b  OK"), text.find("instance a")) << text;
  EXPECT_EQ(text.find("NOT SERVING"), std::string::npos) << text;
  EXPECT_NE(Joined(StatusWatch(true).Frame({stopped}, seconds(1), kNow, {}))
                .find("instance a  NOT SERVING: a: it does not run"),
            std::string::npos);
}

TEST(StatusWatchTest, AFrameFitsTheScreenAndSaysThatThereIsMore) {
  StatusReport report = Report("default", 7, 0, 0, 0);
  for (int i = 0; i < 100; ++i) {
    report.daemon[field::kObjects].push_back(
        Object(16 + i, std::string(100, 'n') + std::to_string(i), 0));
  }
  for (const FrameSize size : {FrameSize{80, 24}, FrameSize{40, 10}, FrameSize{20, 3}}) {
    const std::vector<std::string> lines =
        StatusWatch(false).Frame({report}, seconds(1), kNow, size);
    EXPECT_LE(lines.size(), size.rows);
    EXPECT_EQ(lines.back().substr(0, 10), "  and more");
    for (const std::string& line : lines) EXPECT_LE(line.size(), size.columns) << line;
  }
}

}  // namespace
}  // namespace host
