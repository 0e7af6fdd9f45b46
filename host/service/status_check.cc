#include "host/service/status_check.h"

#include <cstdint>
#include <utility>

#include "cachecore/base/hex.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/protocol/control_messages.h"

namespace host {
namespace {

namespace field = cachecore::control::field;
using cachecore::JsonBool;
using cachecore::JsonField;
using cachecore::JsonInt;
using cachecore::JsonString;
using nlohmann::json;

// A request that waits longer has more than a slow origin.
constexpr int64_t kLongWaitMs = 30'000;

class Faults {
 public:
  void Add(Health health, const std::string& text) {
    if (health > check_.health) check_ = {health, ""};
    if (health == check_.health) check_.line += (check_.line.empty() ? "" : "; ") + text;
  }
  const StatusCheck& worst() const { return check_; }

 private:
  StatusCheck check_;
};

void CheckRequests(const json& daemon, const std::string& name, Faults* faults) {
  const json& requests = JsonField(daemon, field::kRequests);
  const int64_t oldest_ms = JsonInt(requests, field::kOldestMs);
  const int64_t waiting = JsonInt(requests, field::kWaiting);
  if (waiting == 0 || oldest_ms < kLongWaitMs) return;
  std::string cause;
  for (const json& request : JsonField(requests, field::kList)) {
    if (cause.empty()) cause = JsonString(request, field::kCause);
  }
  faults->Add(Health::kDegraded,
              name + ": " + std::to_string(waiting) +
                  (waiting == 1 ? " request waits, for " : " requests wait, the oldest for ") +
                  std::to_string(oldest_ms / 1000) + " s" +
                  (cause.empty() ? "" : " (" + cachecore::WithoutControls(cause) + ")"));
}

void CheckDaemon(const StatusReport& report, Faults* faults) {
  const std::string& name = report.instance;
  const json& daemon = report.daemon;
  if (report.supervisor_pid == 0 && report.systemd_unit.empty()) {
    faults->Add(Health::kDegraded,
                name + ": nothing restarts its daemons" +
                    (report.is_abandoned ? " (holdfast start" + report.flags + ")" : ""));
  }
  if (!report.stopped.empty()) faults->Add(Health::kDegraded, name + ": " + report.stopped);
  const bool has_device = !JsonField(daemon, field::kCachefiles).empty();
  if (!has_device && !JsonBool(JsonField(daemon, field::kFetcher), field::kAttached)) {
    faults->Add(Health::kDegraded, name + ": no fetcher is attached");
  }
  const std::string trouble = JsonString(daemon, field::kStoreTrouble);
  if (!trouble.empty()) {
    faults->Add(Health::kDegraded, name + ": " + cachecore::WithoutControls(trouble));
  }
  const std::string limits = JsonString(JsonField(daemon, field::kCache), field::kTrouble);
  if (!limits.empty()) {
    faults->Add(Health::kDegraded, name + ": " + cachecore::WithoutControls(limits));
  }
  for (const json& object : JsonField(daemon, field::kObjects)) {
    if (!JsonBool(object, field::kFull)) continue;
    faults->Add(Health::kDegraded, name + ": the disk is full");
    break;
  }
  CheckRequests(daemon, name, faults);
}

void CheckInstance(const StatusReport& report, Faults* faults) {
  const std::string& name = report.instance;
  if (!report.is_known && !report.IsRunning()) {
    faults->Add(Health::kNotKnown, name + ": its state is not known without root");
    return;
  }
  if (!report.IsRunning()) {
    faults->Add(Health::kNotServing, name + ": it does not run");
    return;
  }
  if (report.daemon.empty()) {
    faults->Add(
        report.is_known ? Health::kNotServing : Health::kNotKnown,
        name + ": " + report.daemon_error + (report.stopped.empty() ? "" : "; " + report.stopped));
    return;
  }
  for (const MountStatus& mount : report.mounts) {
    if (mount.alive) continue;
    faults->Add(Health::kDegraded, name + ": " +
                                       cachecore::WithoutControls(mount.record.mount_point) +
                                       " is no longer mounted");
  }
  CheckDaemon(report, faults);
}

}  // namespace

bool Counts(const StatusReport& report, bool is_named) {
  return is_named || !report.is_known || report.IsRunning() || !report.mounts.empty() ||
         !report.left_over.empty();
}

StatusCheck CheckStatus(const std::vector<StatusReport>& reports, bool is_named) {
  Faults faults;
  size_t mounts = 0;
  size_t running = 0;
  for (const StatusReport& report : reports) {
    if (Counts(report, is_named)) CheckInstance(report, &faults);
    mounts += report.mounts.size();
    running += report.IsRunning() ? 1 : 0;
  }
  StatusCheck check = faults.worst();
  switch (check.health) {
    case Health::kFine:
      check.line = "OK: instances that serve: " + std::to_string(running) +
                   ", mounts: " + std::to_string(mounts);
      break;
    case Health::kDegraded:
      check.line = "DEGRADED: " + check.line;
      break;
    case Health::kNotServing:
      check.line = "NOT SERVING: " + check.line;
      break;
    case Health::kNotKnown:
      check.line = "NOT KNOWN: " + check.line;
      break;
  }
  return check;
}

}  // namespace host
