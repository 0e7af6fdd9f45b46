#include "cli/status_report.h"

#include <cerrno>

#include "cli/control_client.h"
#include "cli/files.h"
#include "cli/instance_control.h"
#include "cli/process.h"
#include "cli/systemd_unit.h"

namespace cli {
namespace {

using cachecore::Result;
using nlohmann::json;

constexpr std::chrono::milliseconds kStatusTimeout{2000};

json MountToJson(const MountStatus& mount) {
  json value = mount.record.ToJson();
  value.erase("version");
  value["alive"] = mount.alive;
  return value;
}

}  // namespace

StatusReport GatherStatus(const Instance& instance) {
  StatusReport report;
  report.instance = instance.name();
  report.supervisor_pid = SupervisorPid(instance);
  if (report.supervisor_pid == 0 && SystemdRuns(instance)) {
    report.systemd_unit = DaemonUnit(instance);
  }
  report.supervise = ReadSuperviseStatus(instance);
  report.daemon = json::object();
  Result<json> daemon =
      CallControl(instance.ControlSocket(), {{"op", "status"}}, Deadline(kStatusTimeout));
  if (daemon.ok()) {
    report.daemon = std::move(daemon).value();
  } else {
    report.daemon_error = daemon.status().message();
  }
  const Result<std::vector<MountEntry>> table = ReadMountTable();
  for (const MountRecord& record : ListMountRecords(instance)) {
    report.mounts.push_back({record, table.ok() && record.IsAlive(*table)});
  }
  return report;
}

json StatusToJson(const std::vector<StatusReport>& reports) {
  json instances = json::array();
  for (const StatusReport& report : reports) {
    json mounts = json::array();
    for (const MountStatus& mount : report.mounts) mounts.push_back(MountToJson(mount));
    instances.push_back({{"name", report.instance},
                         {"running", report.IsRunning()},
                         {"supervisor_pid", report.supervisor_pid},
                         {"systemd_unit", report.systemd_unit},
                         {"supervise", report.supervise},
                         {"daemon", report.daemon},
                         {"daemon_error", report.daemon_error},
                         {"mounts", mounts}});
  }
  return {{"version", 1}, {"instances", instances}};
}

}  // namespace cli
