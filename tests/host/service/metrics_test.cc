#include "host/service/metrics.h"

#include <gmock/gmock.h>

namespace host {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

StatusReport Serving() {
  StatusReport report;
  report.instance = "one";
  report.supervise = json::parse(R"({"takeovers":2,"services":[
      {"name":"holdfastd","restarts":0},{"name":"fetcherd","restarts":3}]})");
  report.daemon =
      json::parse(R"({"ok":true,"started":1699996340,"store_trouble":"","object_count":7,
      "fetcher":{"attached":true},"requests":{"waiting":4,"oldest_ms":3250},
      "counters":{"reads":10,"reads_waited":5,"bytes_filled":4611686018427387904}})");
  report.mounts.resize(3);
  report.mounts[0].alive = report.mounts[2].alive = true;
  return report;
}

TEST(MetricsTest, WhatIsKnownOfAnInstanceIsThere) {
  const std::string text = MetricsText({Serving()});
  for (const char* line :
       {"# TYPE holdfast_reads_total counter\nholdfast_reads_total{instance_name=\"one\"} 10\n",
        "# TYPE holdfast_up gauge\nholdfast_up{instance_name=\"one\"} 1\n",
        "holdfast_fetcher_attached{instance_name=\"one\"} 1\n",
        "holdfast_oldest_wait_seconds{instance_name=\"one\"} 3.25\n",
        "holdfast_requests_waiting{instance_name=\"one\"} 4\n",
        "holdfast_filled_bytes_total{instance_name=\"one\"} 4.611686018427388e+18\n",
        "holdfast_objects{instance_name=\"one\"} 7\n",
        "holdfast_mounts{instance_name=\"one\",state=\"mounted\"} 2\n",
        "holdfast_mounts{instance_name=\"one\",state=\"lost\"} 1\n",
        "holdfast_service_restarts_total{instance_name=\"one\",service=\"fetcherd\"} 3\n",
        "holdfast_supervisor_takeovers_total{instance_name=\"one\"} 2\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(MetricsTest, WhatIsNotKnownHasNoSample) {
  StatusReport dead;
  dead.instance = "two";
  dead.daemon = json::object();
  const std::string text = MetricsText({dead});
  EXPECT_THAT(text, HasSubstr("holdfast_up{instance_name=\"two\"} 0\n"));
  EXPECT_THAT(text, Not(HasSubstr("holdfast_reads_total")));
  EXPECT_THAT(text, Not(HasSubstr("holdfast_fetcher_attached")));
  // An older daemon does not have every counter.
  EXPECT_THAT(MetricsText({Serving()}), Not(HasSubstr("holdfast_culled_bytes_total")));
}

TEST(MetricsTest, AnInstanceWithACachefilesDeviceHasNoFetcher) {
  StatusReport report = Serving();
  report.daemon["cachefiles"] = {{"path", "/dev/cachefiles"}, {"open", true}};
  const std::string text = MetricsText({report});
  EXPECT_THAT(text, HasSubstr("holdfast_cachefiles_open{instance_name=\"one\"} 1\n"));
  EXPECT_THAT(text, Not(HasSubstr("holdfast_fetcher_attached")));
  EXPECT_THAT(MetricsText({Serving()}), Not(HasSubstr("holdfast_cachefiles_open")));
}

TEST(MetricsTest, WhetherTheSupervisorCanBeReplacedIsTold) {
  StatusReport report = Serving();
  report.supervisor_pid = 10;
  EXPECT_THAT(MetricsText({report}), Not(HasSubstr("holdfast_supervisor_standby")));  // Older.
  EXPECT_THAT(MetricsText({report}), HasSubstr("_stopped{instance_name=\"one\"} 0\n"));
  report.supervise["standby"] = 11;
  report.stopped = "its standby (process 11) is stopped";
  EXPECT_THAT(MetricsText({report}), HasSubstr("_standby{instance_name=\"one\"} 1\n"));
  EXPECT_THAT(MetricsText({report}), HasSubstr("_stopped{instance_name=\"one\"} 1\n"));
  report.supervise["standby"] = 0;
  EXPECT_THAT(MetricsText({report}), HasSubstr("_standby{instance_name=\"one\"} 0\n"));
  report.supervisor_pid = 0;  // What it said is of no use any more.
  EXPECT_THAT(MetricsText({report}), Not(HasSubstr("holdfast_supervisor_st")));
}

TEST(MetricsTest, TheLimitsOfTheCacheAreTold) {
  StatusReport report = Serving();
  EXPECT_THAT(MetricsText({report}), Not(HasSubstr("holdfast_cache_")));  // Older.
  report.daemon["cache"] = json::parse(
      R"({"allocated":7,"max_bytes":5,"min_free_bytes":0,"free":9,"trouble":"above its limit"})");
  const std::string text = MetricsText({report});
  for (const char* line : {"holdfast_cache_bytes{instance_name=\"one\"} 7\n",
                           "holdfast_cache_max_bytes{instance_name=\"one\"} 5\n",
                           "holdfast_cache_min_free_bytes{instance_name=\"one\"} 0\n",
                           "holdfast_cache_free_bytes{instance_name=\"one\"} 9\n",
                           "holdfast_cache_above_limit{instance_name=\"one\"} 1\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(MetricsTest, TotalsComeBeforeTheCountersOfThisLife) {
  StatusReport report = Serving();
  report.daemon["totals"] = json::parse(R"({"reads":70,"reads_by_result hit":60,
      "reads_by_result miss":9,"reads_by_result":1,"read_wait 0":3,"read_wait 7":2,
      "read_wait 12":1,"read_wait_us":4500000})");
  const std::string text = MetricsText({report});
  for (const char* line :
       {"holdfast_reads_total{instance_name=\"one\"} 70\n",
        "holdfast_reads_by_result_total{instance_name=\"one\",result=\"hit\"} 60\n",
        "holdfast_reads_by_result_total{instance_name=\"one\",result=\"miss\"} 9\n",
        "# TYPE holdfast_read_wait_seconds histogram\n"
        "holdfast_read_wait_seconds_count{instance_name=\"one\"} 6\n"
        "holdfast_read_wait_seconds_sum{instance_name=\"one\"} 4.5\n"
        "holdfast_read_wait_seconds_bucket{instance_name=\"one\",le=\"0.001\"} 3\n",
        "_bucket{instance_name=\"one\",le=\"1\"} 3\n",
        "_bucket{instance_name=\"one\",le=\"3\"} 5\n",
        "_bucket{instance_name=\"one\",le=\"300\"} 5\n",
        "_bucket{instance_name=\"one\",le=\"+Inf\"} 6\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(MetricsTest, EachFamilyIsThereOnceForAllInstances) {
  StatusReport two = Serving();
  two.instance = "two";
  const std::string text = MetricsText({Serving(), two});
  EXPECT_THAT(text, HasSubstr("holdfast_reads_total{instance_name=\"one\"} 10\n"
                              "holdfast_reads_total{instance_name=\"two\"} 10\n"));
  EXPECT_EQ(MetricsText({}), "");
}

}  // namespace
}  // namespace host
