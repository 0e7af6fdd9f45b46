#include <cstdio>
#include <ctime>

#include "cachecore/base/hex.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/protocol/control_messages.h"
#include "host/instance/supervisor_process.h"
#include "host/service/status_report.h"
#include "host/supervisor/supervise_fields.h"

namespace host {
namespace {

namespace field = cachecore::control::field;
using cachecore::JsonBool;
using cachecore::JsonField;
using cachecore::JsonInt;
using cachecore::JsonString;
using cachecore::WithoutControls;
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
  for (const json& service : JsonField(report.supervise, supervise_field::kServices)) {
    if (JsonString(service, supervise_field::kName) == name) return service;
  }
  return kNone;
}

// ", restarted 3 times (last: killed by signal 9)".
std::string Restarts(const StatusReport& report, const char* service_name, int64_t now_unix_s) {
  const json& service = Service(report, service_name);
  const auto restarts = static_cast<size_t>(JsonInt(service, supervise_field::kRestarts));
  std::string text;
  if (restarts > 0) text += ", restarted " + Count(restarts, "time");
  const std::string last_exit = JsonString(service, supervise_field::kLastExit);
  if (!last_exit.empty()) text += " (last: " + last_exit + ")";
  const int64_t retry_at_ms = JsonInt(service, supervise_field::kRetryAtMs);
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
  return "  daemon      pid " + std::to_string(JsonInt(daemon, field::kPid)) + ", version " +
         JsonString(daemon, field::kVersion) + ", up " +
         Age(now_unix_s - JsonInt(daemon, field::kStarted)) + ", detach policy " +
         JsonString(daemon, field::kDetachPolicy) + restarts + "\n";
}

std::string StandbyLine(const StatusReport& report) {
  const std::optional<StandbyState> standby = StandbyOf(report);
  if (!standby) return "";
  if (standby->pid > 0) return "  standby     pid " + std::to_string(standby->pid) + "\n";
  const std::string why = WithoutControls(standby->why_none);
  return "  standby     none" + (why.empty() ? "" : ": " + why) + "\n";
}

// Of an instance with a cachefiles device, which has no fetcher.
std::string CachefilesLine(const json& device) {
  std::string text = "  cachefiles  " + JsonString(device, "path");
  const int64_t pid = JsonInt(device, "pid");
  const std::string why = WithoutControls(JsonString(device, "trouble"));
  const std::string trouble = why.empty() ? "\n" : ", its last write was not stored: " + why + "\n";
  if (!JsonBool(device, "open")) return text + ", no program has it open" + trouble;
  text += ", open" + (pid > 0 ? " by pid " + std::to_string(pid) : "");
  if (!JsonBool(device, "bound")) return text + ", not bound" + trouble;
  return text + ", bound " + (JsonBool(device, "ondemand") ? "on demand " : "") + "to " +
         WithoutControls(JsonString(device, "directory") + ", tag " + JsonString(device, "tag")) +
         (JsonBool(device, "culling") ? ", culling is wanted" : "") + trouble;
}

std::string FetcherLine(const StatusReport& report, int64_t now_unix_s) {
  const std::string restarts = Restarts(report, kFetcher, now_unix_s);
  if (report.daemon.empty()) return "  fetcher     unknown while the daemon does not serve\n";
  const json& device = JsonField(report.daemon, field::kCachefiles);
  if (!device.empty()) return CachefilesLine(device);
  const json& fetcher = JsonField(report.daemon, field::kFetcher);
  const int64_t since = JsonInt(fetcher, field::kSince);
  if (!JsonBool(fetcher, field::kAttached)) {
    return "  fetcher     not attached" +
           (since > 0 ? " for " + Age(now_unix_s - since) + " (since " + Utc(since) + ")" : "") +
           restarts + "\n";
  }
  return "  fetcher     pid " + std::to_string(JsonInt(fetcher, field::kPid)) + ", attached for " +
         Age(now_unix_s - since) + " (since " + Utc(since) + "), generation " +
         std::to_string(JsonInt(report.daemon, field::kGeneration)) + restarts + "\n";
}

std::string MountLines(const StatusReport& report) {
  std::string text;
  for (const MountStatus& mount : report.mounts) {
    const MountRecord& record = mount.record;
    const std::string point = WithoutControls(record.mount_point);
    const std::string dead = "  [dead: nothing serves it; holdfast umount" + report.root_flag +
                             " --force " + point + "]";
    const std::string state = !mount.alive          ? "  [gone: no longer mounted]"
                              : !record.mounted     ? "  [being mounted]"
                              : !report.is_known    ? "  [state not known]"
                              : !report.IsRunning() ? dead
                                                    : "";
    text += "  mount       " + point + "  " + (record.kind.empty() ? "" : record.kind + "  ") +
            (record.offset == 0 ? "" : "from byte " + std::to_string(record.offset) + " of ") +
            (record.layers.empty() ? "" : std::to_string(record.layers.size()) + " layers  ") +
            record.url +
            (record.manifest.empty() || record.url.ends_with(record.manifest)
                 ? ""
                 : "  " + record.manifest) +
            state + "\n";
  }
  return text;
}

std::string ObjectLines(const StatusReport& report) {
  std::string text;
  for (const json& object : JsonField(report.daemon, field::kObjects)) {
    const int64_t size = JsonInt(object, field::kSize);
    const std::string error = JsonString(object, field::kError);
    text += "  object " + std::to_string(JsonInt(object, field::kNumber)) + "  " +
            WithoutControls(JsonString(object, field::kVolume) + "/" +
                            JsonString(object, field::kName)) +
            "  " + Size(size) + ", " + Percent(JsonInt(object, field::kPresent), size) +
            " present, " + JsonString(object, field::kState) +
            (JsonBool(object, field::kVerified) ? ", verified" : ", unverified") +
            (JsonBool(object, field::kStale) ? ", stale" : "") +
            (JsonBool(object, field::kPinned) ? ", pinned" : "") +
            (JsonBool(object, field::kFull) ? ", disk full: served without being kept" : "") +
            (error.empty() ? "" : ", error: " + WithoutControls(error)) + "\n";
  }
  return text;
}

// Nothing while the limits are kept.
std::string CacheLine(const StatusReport& report) {
  const json& cache = JsonField(report.daemon, field::kCache);
  const std::string trouble = WithoutControls(JsonString(cache, field::kTrouble));
  return trouble.empty() ? "" : "  cache       " + trouble + "\n";
}

std::string RequestLines(const StatusReport& report) {
  const json& requests = JsonField(report.daemon, field::kRequests);
  const auto waiting = static_cast<size_t>(JsonInt(requests, field::kWaiting));
  if (report.daemon.empty()) return "";
  if (waiting == 0) return "  requests    none waiting\n";
  std::string text = "  requests    " + std::to_string(waiting) + " waiting, the oldest for " +
                     Milliseconds(JsonInt(requests, field::kOldestMs)) + "\n";
  size_t shown = 0;
  for (const json& request : JsonField(requests, field::kList)) {
    if (shown++ == kRequestsShownMax) return text + "    ...\n";
    const std::string cause = JsonString(request, field::kCause);
    text +=
        "    " + JsonString(request, field::kOp) + " object " +
        std::to_string(JsonInt(request, field::kObject)) + " offset " +
        std::to_string(JsonInt(request, field::kOffset)) + " length " +
        std::to_string(JsonInt(request, field::kLength)) + ", waits " +
        Milliseconds(JsonInt(request, field::kAgeMs)) + ", " +
        Count(static_cast<size_t>(JsonInt(request, field::kWaiters)), "waiter") + ", " +
        (JsonBool(request, field::kDelivered) ? "with the fetcher" : "not yet with the fetcher") +
        (cause.empty() ? "" : ": " + WithoutControls(cause)) + "\n";
  }
  return text;
}

// Nothing starts again what has ended then.
std::string NotRunning(const StatusReport& report) {
  if (report.left_over.empty()) return "not running";
  std::string text = "not served: its supervisor is gone, so nothing restarts its daemons; left: ";
  std::string list;
  for (const auto& [pid, program] : report.left_over) {
    list += (list.empty() ? "" : ", ") + program + " (pid " + std::to_string(pid) + ")";
  }
  if (report.is_abandoned) {
    return text + list + "; to have another supervisor go on with it: holdfast start" +
           report.flags;
  }
  return text + list + "; unmount its mounts with --force, then: holdfast stop" + report.flags;
}

std::string InstanceText(const StatusReport& report, int64_t now_unix_s) {
  std::string text = "instance " + report.instance + ": ";
  if (!report.is_known && !report.IsRunning()) {
    return text + "state not known, this needs root; use sudo\n" + MountLines(report);
  }
  if (!report.IsRunning()) return text + NotRunning(report) + "\n" + MountLines(report);
  text += report.supervisor_pid > 0
              ? "running, supervisor pid " + std::to_string(report.supervisor_pid) + "\n"
          : !report.systemd_unit.empty()
              ? "running, kept by systemd as " + report.systemd_unit + "\n"
          : report.is_abandoned
              ? "running, but its supervisor is gone, so nothing restarts its daemons; to have "
                "another one go on with them: holdfast start" +
                    report.flags + "\n"
              : "running without holdfast supervise: a daemon that dies may not come back\n";
  if (!report.stopped.empty()) text += "  trouble     " + report.stopped + "\n";
  return text + StandbyLine(report) + DaemonLine(report, now_unix_s) +
         FetcherLine(report, now_unix_s) + CacheLine(report) + MountLines(report) +
         ObjectLines(report) + RequestLines(report);
}

}  // namespace

std::string StatusToText(const std::vector<StatusReport>& reports, int64_t now_unix_s) {
  if (reports.empty()) return "no instances\n";
  std::string text;
  for (const StatusReport& report : reports) text += InstanceText(report, now_unix_s);
  return text;
}

}  // namespace host
