#include <gtest/gtest.h>

#include "cachecore/system/files.h"
#include "host/service/status_report.h"

namespace host {
namespace {

using nlohmann::json;

constexpr int64_t kNow = 1700000000;

StatusReport Serving() {
  StatusReport report;
  report.instance = "default";
  report.supervisor_pid = 10;
  report.supervise = json::parse(R"({"services":[
      {"name":"holdfastd","restarts":0,"retry_at_ms":0,"last_exit":""},
      {"name":"fetcherd","restarts":3,"retry_at_ms":1700000001500,
       "last_exit":"killed by signal 9"}]})");
  report.daemon = json::parse(R"({"ok":true,"version":"0.1.0","pid":11,"started":1699996340,
      "detach_policy":"hold","generation":4,
      "fetcher":{"attached":true,"since":1699999875,"pid":12},
      "objects":[
        {"number":17,"volume":"h-1","name":"image.erofs","size":3221225472,"present":3221225471,
         "state":"Open","stale":false,"pinned":true,"error":""},
        {"number":18,"volume":"h-2","name":"x","size":0,"present":0,"state":"Close","stale":true,"full":true,
         "error":"404 Not Found"}],
      "cache":{"trouble":"17 bytes are pinned"},
      "requests":{"waiting":1,"oldest_ms":3210,"list":[
        {"id":1,"op":"READ","object":17,"offset":4096,"length":65536,"age_ms":3210,"waiters":2,
         "delivered":true,"cause":"connection refused"}]}})");
  MountRecord record;
  record.mount_point = "/mnt/x";
  record.url = "http://h/image.erofs";
  record.kind = "erofs";
  record.mounted = true;
  report.mounts = {{record, true}};
  return report;
}

TEST(StatusTextTest, TheStandbyIsShownOrWhyThereIsNone) {
  StatusReport report = Serving();
  const auto text = [&] { return StatusToText({report}, kNow); };
  const auto field = [&] { return StatusToJson({report})["instances"][0]["standby"]; };
  EXPECT_EQ(text().find("standby"), std::string::npos) << "an older supervisor does not say it";
  EXPECT_TRUE(field().is_null());
  report.supervise["standby"] = 13;
  report.supervise["why_no_standby"] = "";
  EXPECT_NE(text().find("supervisor pid 10\n  standby     pid 13\n  daemon"), std::string::npos);
  EXPECT_EQ(field(), json::parse(R"({"pid":13,"why_none":""})"));
  report.supervise["standby"] = 0;
  report.supervise["why_no_standby"] = "--no-standby was given";
  EXPECT_NE(text().find("  standby     none: --no-standby was given\n"), std::string::npos);
  EXPECT_EQ(field(), json::parse(R"({"pid":0,"why_none":"--no-standby was given"})"));
}

TEST(StatusTextTest, AStoppedSupervisorIsShown) {
  StatusReport report = Serving();
  report.stopped = "its supervisor (process 10) is stopped; let it go on: kill -CONT 10";
  EXPECT_NE(StatusToText({report}, kNow).find("  trouble     " + report.stopped + "\n"),
            std::string::npos);
  EXPECT_EQ(StatusToJson({report})["instances"][0]["stopped"], report.stopped);
}

TEST(StatusTextTest, ARunningInstanceIsShownWhole) {
  EXPECT_EQ(StatusToText({Serving()}, kNow),
            "instance default: running, supervisor pid 10\n"
            "  daemon      pid 11, version 0.1.0, up 1h 1m, detach policy hold\n"
            "  fetcher     pid 12, attached for 2m 5s (since 2023-11-14T22:11:15Z), generation 4, "
            "restarted 3 times (last: killed by signal 9), next start in 1.5 s\n"
            "  cache       17 bytes are pinned\n"
            "  mount       /mnt/x  erofs  http://h/image.erofs\n"
            "  object 17  h-1/image.erofs  3.0 GiB, 99.9 % present, Open, unverified, pinned\n"
            "  object 18  h-2/x  0 B, 100.0 % present, Close, unverified, stale, disk full: "
            "served without being kept, error: 404 Not Found\n"
            "  requests    1 waiting, the oldest for 3.2 s\n"
            "    READ object 17 offset 4096 length 65536, waits 3.2 s, 2 waiters, with the "
            "fetcher: connection refused\n");
}

TEST(StatusTextTest, ControlCharactersInAMountPointBreakNoLine) {
  StatusReport report = Serving();
  report.mounts[0].record.mount_point = "/mnt/a\nb\x1b[31m\x7f";
  EXPECT_NE(StatusToText({report}, kNow).find("  mount       /mnt/a\\012b\\033[31m\\177  erofs  "),
            std::string::npos);
}

TEST(StatusTextTest, ADeadDaemonIsShownAsDead) {
  StatusReport report = Serving();
  report.daemon = json::object();
  report.daemon_error = "/run/x/control.sock: Connection refused";
  report.supervise["services"][0]["restarts"] = 1;
  report.supervise["services"][0]["last_exit"] = "exited with code 1";
  report.mounts[0].alive = false;
  EXPECT_EQ(StatusToText({report}, kNow),
            "instance default: running, supervisor pid 10\n"
            "  daemon      not serving: /run/x/control.sock: Connection refused, restarted 1 time "
            "(last: exited with code 1)\n"
            "  fetcher     unknown while the daemon does not serve\n"
            "  mount       /mnt/x  erofs  http://h/image.erofs  [gone: no longer mounted]\n");
}

TEST(StatusTextTest, ADetachedFetcherIsSaid) {
  StatusReport report = Serving();
  report.supervisor_pid = 0;
  report.supervise = json::object();
  report.daemon["fetcher"] = {{"attached", false}};
  report.daemon["objects"] = json::array();
  report.daemon["requests"] = {{"waiting", 0}};
  report.mounts[0].record.mounted = false;
  report.mounts[0].record.kind = "";
  EXPECT_EQ(StatusToText({report}, kNow),
            "instance default: running without holdfast supervise: a daemon that dies may not come "
            "back\n"
            "  daemon      pid 11, version 0.1.0, up 1h 1m, detach policy hold\n"
            "  fetcher     not attached\n"
            "  cache       17 bytes are pinned\n"
            "  mount       /mnt/x  http://h/image.erofs  [being mounted]\n"
            "  requests    none waiting\n");
}

TEST(StatusTextTest, ACachefilesDeviceIsInTheFetchersPlace) {
  StatusReport report = Serving();
  const auto has = [&](const char* state, const std::string& line) {
    report.daemon["cachefiles"] = json::parse(state);
    const std::string text = StatusToText({report}, kNow);
    EXPECT_NE(text.find("  cachefiles  /d" + line + "\n"), std::string::npos) << text;
    EXPECT_EQ(text.find("  fetcher "), std::string::npos) << text;
  };
  has(R"({"path":"/d"})", ", no program has it open");
  has(R"({"path":"/d","open":true,"pid":7})", ", open by pid 7, not bound");
  has(R"({"path":"/d","open":true,"pid":0,"bound":true,"directory":"/c\u001b","tag":"t"})",
      ", open, bound to /c\\033, tag t");
  has(R"({"path":"/d","open":true,"pid":7,"bound":true,"ondemand":true,"directory":"/c","tag":"t",
         "culling":true})",
      ", open by pid 7, bound on demand to /c, tag t, culling is wanted");
  has(R"({"path":"/d","trouble":"full"})",
      ", no program has it open, its last write was not stored: full");
  has(R"({"path":"/d","open":true,"pid":7,"bound":true,"directory":"/c","tag":"t",
         "trouble":"full\n"})",
      ", open by pid 7, bound to /c, tag t, its last write was not stored: full\\012");
}

TEST(StatusTextTest, StoppedAndMissingInstancesAreSaid) {
  StatusReport report;
  report.instance = "old";
  EXPECT_EQ(StatusToText({report}, kNow), "instance old: not running\n");
  report.mounts = Serving().mounts;
  EXPECT_EQ(StatusToText({report}, kNow),
            "instance old: not running\n"
            "  mount       /mnt/x  erofs  http://h/image.erofs  [dead: nothing serves it; holdfast "
            "umount --force /mnt/x]\n");
  EXPECT_EQ(StatusToText({}, kNow), "no instances\n");
}

TEST(StatusTextTest, OfManyRequestsTheFirstTenAreShown) {
  StatusReport report = Serving();
  json& requests = report.daemon["requests"];
  for (int i = 0; i < 20; ++i) requests["list"].push_back(requests["list"][0]);
  const std::string text = StatusToText({report}, kNow);
  size_t shown = 0;
  for (size_t at = 0; (at = text.find("    READ ", at)) != std::string::npos; ++at) ++shown;
  EXPECT_EQ(shown, 10u);
  EXPECT_TRUE(text.ends_with("    ...\n"));
}

TEST(StatusTextTest, AnswersOfAnyShapeArePrinted) {
  StatusReport report = Serving();
  for (const char* key : {"pid", "version", "started", "fetcher", "objects", "requests"}) {
    for (const json& odd : {json(nullptr), json("text"), json(7), json::array({1, "x"})}) {
      SCOPED_TRACE(std::string(key) + " " + odd.dump());
      StatusReport changed = report;
      changed.daemon[key] = odd;
      changed.supervise["services"] = odd;
      EXPECT_TRUE(StatusToText({changed}, kNow).starts_with("instance default: running"));
    }
  }
}

TEST(StatusJsonTest, HoldsWhatTheSourcesSaid) {
  const StatusReport report = Serving();
  const json value = StatusToJson({report});
  const json& instance = value["instances"][0];
  EXPECT_EQ(value["version"], 1);
  EXPECT_EQ(instance["name"], "default");
  EXPECT_EQ(instance["running"], true);
  EXPECT_EQ(instance["supervisor_pid"], 10);
  EXPECT_EQ(instance["daemon"], report.daemon);
  EXPECT_EQ(instance["supervise"], report.supervise);
  EXPECT_EQ(instance["mounts"][0]["mount_point"], "/mnt/x");
  EXPECT_EQ(instance["mounts"][0]["alive"], true);
}

}  // namespace
}  // namespace host
