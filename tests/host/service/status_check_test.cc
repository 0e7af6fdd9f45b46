#include "host/service/status_check.h"

#include <gtest/gtest.h>

namespace host {
namespace {

using nlohmann::json;

StatusReport Serving() {
  StatusReport report;
  report.instance = "one";
  report.supervisor_pid = 10;
  report.daemon = json::parse(R"({"ok":true,"store_trouble":"","fetcher":{"attached":true},
      "objects":[],"requests":{"waiting":4,"oldest_ms":3250,"list":[]}})");
  report.mounts.resize(1);
  report.mounts[0].alive = true;
  report.mounts[0].record.mount_point = "/mnt/x";
  return report;
}

void ExpectCheck(const StatusReport& report, Health health, const std::string& line,
                 bool is_named = false) {
  const StatusCheck check = CheckStatus({report}, is_named);
  EXPECT_EQ(check.health, health);
  EXPECT_EQ(check.line, line);
}

TEST(StatusCheckTest, AnInstanceThatServesIsFine) {
  ExpectCheck(Serving(), Health::kFine, "OK: instances that serve: 1, mounts: 1");
  EXPECT_EQ(CheckStatus({}, false).line, "OK: instances that serve: 0, mounts: 0");
}

TEST(StatusCheckTest, WhatIsDegradedIsNamed) {
  StatusReport report = Serving();
  report.daemon["fetcher"]["attached"] = false;
  ExpectCheck(report, Health::kDegraded, "DEGRADED: one: no fetcher is attached");
  report.daemon["cachefiles"] = {{"path", "/dev/cachefiles"}};
  ExpectCheck(report, Health::kFine, "OK: instances that serve: 1, mounts: 1");

  report = Serving();
  report.daemon["requests"] =
      json::parse(R"({"waiting":2,"oldest_ms":31000,"list":[{"cause":"connection refused"}]})");
  report.mounts[0].alive = false;
  ExpectCheck(report, Health::kDegraded,
              "DEGRADED: one: /mnt/x is no longer mounted; one: 2 requests wait, the oldest for "
              "31 s (connection refused)");

  report = Serving();
  report.daemon["store_trouble"] = "the database takes no writes";
  ExpectCheck(report, Health::kDegraded, "DEGRADED: one: the database takes no writes");

  report = Serving();
  report.daemon["cache"] = {{"trouble", "the cache is above its limit by 5 bytes"}};
  ExpectCheck(report, Health::kDegraded, "DEGRADED: one: the cache is above its limit by 5 bytes");

  report = Serving();
  report.supervisor_pid = 0;
  ExpectCheck(report, Health::kDegraded, "DEGRADED: one: nothing restarts its daemons");
}

TEST(StatusCheckTest, AStoppedSupervisorIsNamed) {
  StatusReport report = Serving();
  report.stopped = "its supervisor (process 10) is stopped";
  ExpectCheck(report, Health::kDegraded, "DEGRADED: one: its supervisor (process 10) is stopped");
  report.daemon = json::object();
  report.daemon_error = "connection refused";
  ExpectCheck(report, Health::kNotServing,
              "NOT SERVING: one: connection refused; its supervisor (process 10) is stopped");
}

TEST(StatusCheckTest, ADaemonThatDoesNotAnswerDoesNotServe) {
  StatusReport report = Serving();
  report.daemon = json::object();
  report.daemon_error = "connection refused";
  ExpectCheck(report, Health::kNotServing, "NOT SERVING: one: connection refused");
  report.supervisor_pid = 0;
  ExpectCheck(report, Health::kNotServing, "NOT SERVING: one: it does not run");
}

TEST(StatusCheckTest, AStoppedInstanceCountsOnlyByName) {
  StatusReport report;
  report.instance = "one";
  report.daemon = json::object();
  ExpectCheck(report, Health::kFine, "OK: instances that serve: 0, mounts: 0");
  ExpectCheck(report, Health::kNotServing, "NOT SERVING: one: it does not run", true);
  EXPECT_FALSE(Counts(report, false));
  EXPECT_TRUE(Counts(report, true));
  report.is_known = false;
  EXPECT_TRUE(Counts(report, false));
  ExpectCheck(report, Health::kNotKnown, "NOT KNOWN: one: its state is not known without root");
}

TEST(StatusCheckTest, TheWorstInstanceCounts) {
  StatusReport degraded = Serving();
  degraded.daemon["fetcher"]["attached"] = false;
  StatusReport down = Serving();
  down.instance = "two";
  down.daemon = json::object();
  down.daemon_error = "timed out";
  EXPECT_EQ(CheckStatus({degraded, down, Serving()}, false).line, "NOT SERVING: two: timed out");
}

}  // namespace
}  // namespace host
