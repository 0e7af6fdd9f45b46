#include <cstdio>
#include <ctime>

#include "cli/files.h"
#include "cli/process.h"
#include "cli/status_report.h"

namespace cli {
namespace {

using nlohmann::json;

constexpr size_t kRequestsShownMax = 10;

std::string Printed(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

std::string Size(int64_t bytes) {
  const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(units)) value /= 1024, ++unit;
  return Printed(unit == 0 ? "%.0f " : "%.1f ", value) + units[unit];
}

// Rounded down, so that only what is wholly present is "100.0 %".
std::string Percent(int64_t part, int64_t whole) {
  if (whole <= 0 || part >= whole) return "100.0 %";
  const double permille = static_cast<double>(part) * 1000 / static_cast<double>(whole);
  return Printed("%.1f %%", static_cast<double>(static_cast<int64_t>(permille)) / 10);
}

std::string Age(int64_t seconds) {
  if (seconds < 0) seconds = 0;  // The clock was set back.
  const auto with = [](int64_t big, const char* big_unit, int64_t small, const char* small_unit) {
    return std::to_string(big) + big_unit + " " + std::to_string(small) + small_unit;
  };
  if (seconds < 60) return std::to_string(seconds) + "s";
  if (seconds < 3600) return with(seconds / 60, "m", seconds % 60, "s");
  if (seconds < 86400) return with(seconds / 3600, "h", seconds / 60 % 60, "m");
  return with(seconds / 86400, "d", seconds / 3600 % 24, "h");
}

std::string Milliseconds(int64_t ms) {
  return ms < 60'000 ? Printed("%.1f s", static_cast<double>(ms) / 1000) : Age(ms / 1000);
}

std::string Utc(int64_t unix_s) {
  const std::time_t time = unix_s;
  std::tm fields = {};
  gmtime_r(&time, &fields);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &fields);
  return text;
}

std::string Count(size_t n, const char* noun) {
  return std::to_string(n) + " " + noun + (n == 1 ? "" : "s");
}

const json& Service(const StatusReport& report, const char* name) {
  static const json kNone = json::object();
  for (const json& service : JsonField(report.supervise, "services")) {
    if (JsonString(service, "name") == name) return service;
  }
  return kNone;
}

// ", restarted 3 times (last: killed by signal 9)".
std::string Restarts(const StatusReport& report, const char* service_name, int64_t now_unix_s) {
  const json& service = Service(report, service_name);
  const auto restarts = static_cast<size_t>(JsonInt(service, "restarts"));
  std::string text;
  if (restarts > 0) text += ", restarted " + Count(restarts, "time");
  const std::string last_exit = JsonString(service, "last_exit");
  if (!last_exit.empty()) text += " (last: " + last_exit + ")";
  const int64_t retry_at_ms = JsonInt(service, "retry_at_ms");
  if (retry_at_ms > now_unix_s * 1000) {
    text += ", next start in " + Milliseconds(retry_at_ms - now_unix_s * 1000);
  }
  return text;
}

std::string DaemonLine(const StatusReport& report, int64_t now_unix_s) {
  const std::string restarts = Restarts(report, kDaemon, now_unix_s);
  if (report.daemon.empty()) {
    return "  daemon      not serving: " + report.daemon_error + restarts + "\n";
  }
  const json& daemon = report.daemon;
  return "  daemon      pid " + std::to_string(JsonInt(daemon, "pid")) + ", version " +
         JsonString(daemon, "version") + ", up " + Age(now_unix_s - JsonInt(daemon, "started")) +
         ", detach policy " + JsonString(daemon, "detach_policy") + restarts + "\n";
}

std::string FetcherLine(const StatusReport& report, int64_t now_unix_s) {
  const std::string restarts = Restarts(report, kFetcher, now_unix_s);
  if (report.daemon.empty()) return "  fetcher     unknown while the daemon does not serve\n";
  const json& fetcher = JsonField(report.daemon, "fetcher");
  const int64_t since = JsonInt(fetcher, "since");
  if (!JsonBool(fetcher, "attached")) {
    return "  fetcher     not attached" +
           (since > 0 ? " for " + Age(now_unix_s - since) + " (since " + Utc(since) + ")" : "") +
           restarts + "\n";
  }
  return "  fetcher     pid " + std::to_string(JsonInt(fetcher, "pid")) + ", attached for " +
         Age(now_unix_s - since) + " (since " + Utc(since) + "), generation " +
         std::to_string(JsonInt(report.daemon, "generation")) + restarts + "\n";
}

std::string MountLines(const StatusReport& report) {
  std::string text;
  for (const MountStatus& mount : report.mounts) {
    const MountRecord& record = mount.record;
    const char* state = !mount.alive          ? "  [gone: no longer mounted]"
                        : !record.mounted     ? "  [being mounted]"
                        : !report.IsRunning() ? "  [dead: nothing serves it; holdfast umount]"
                                              : "";
    text += "  mount       " + record.mount_point + "  " +
            (record.kind.empty() ? "" : record.kind + "  ") + record.url +
            (record.manifest.empty() || record.url.ends_with(record.manifest)
                 ? ""
                 : "  " + record.manifest) +
            state + "\n";
  }
  return text;
}

std::string ObjectLines(const StatusReport& report) {
  std::string text;
  for (const json& object : JsonField(report.daemon, "objects")) {
    const int64_t size = JsonInt(object, "size");
    const std::string error = JsonString(object, "error");
    text += "  object " + std::to_string(JsonInt(object, "number")) + "  " +
            JsonString(object, "volume") + "/" + JsonString(object, "name") + "  " + Size(size) +
            ", " + Percent(JsonInt(object, "present"), size) + " present, " +
            JsonString(object, "state") + (JsonBool(object, "verified") ? ", verified" : ", unverified") +
            (JsonBool(object, "stale") ? ", stale" : "") +
            (error.empty() ? "" : ", error: " + error) + "\n";
  }
  return text;
}

std::string RequestLines(const StatusReport& report) {
  const json& requests = JsonField(report.daemon, "requests");
  const auto waiting = static_cast<size_t>(JsonInt(requests, "waiting"));
  if (report.daemon.empty()) return "";
  if (waiting == 0) return "  requests    none waiting\n";
  std::string text = "  requests    " + std::to_string(waiting) + " waiting, the oldest for " +
                     Milliseconds(JsonInt(requests, "oldest_ms")) + "\n";
  size_t shown = 0;
  for (const json& request : JsonField(requests, "list")) {
    if (shown++ == kRequestsShownMax) return text + "    ...\n";
    const std::string cause = JsonString(request, "cause");
    text += "    " + JsonString(request, "op") + " object " +
            std::to_string(JsonInt(request, "object")) + " offset " +
            std::to_string(JsonInt(request, "offset")) + " length " +
            std::to_string(JsonInt(request, "length")) + ", waits " +
            Milliseconds(JsonInt(request, "age_ms")) + ", " +
            Count(static_cast<size_t>(JsonInt(request, "waiters")), "waiter") + ", " +
            (JsonBool(request, "delivered") ? "with the fetcher" : "not yet with the fetcher") +
            (cause.empty() ? "" : ": " + cause) + "\n";
  }
  return text;
}

std::string InstanceText(const StatusReport& report, int64_t now_unix_s) {
  std::string text = "instance " + report.instance + ": ";
  if (!report.IsRunning()) return text + "not running\n" + MountLines(report);
  text += report.supervisor_pid > 0
              ? "running, supervisor pid " + std::to_string(report.supervisor_pid) + "\n"
          : !report.systemd_unit.empty()
              ? "running, kept by systemd as " + report.systemd_unit + "\n"
              : "running without holdfast supervise: a daemon that dies may not come back\n";
  return text + DaemonLine(report, now_unix_s) + FetcherLine(report, now_unix_s) +
         MountLines(report) + ObjectLines(report) + RequestLines(report);
}

}  // namespace

std::string StatusToText(const std::vector<StatusReport>& reports, int64_t now_unix_s) {
  if (reports.empty()) return "no instances\n";
  std::string text;
  for (const StatusReport& report : reports) text += InstanceText(report, now_unix_s);
  return text;
}

}  // namespace cli
