#include "cli/status_report.h"

#include <cerrno>

#include "cli/control_client.h"
#include "cli/files.h"
#include "cli/instance_control.h"
#include "cli/instance_processes.h"
#include "cli/own_mounts.h"
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
  // Its files may be gone while it lives.
  if (report.supervisor_pid == 0 && report.systemd_unit.empty() && !AnswersPing(instance)) {
    for (const InstanceProcess& process : FindInstanceProcesses(instance)) {
      if (report.supervisor_pid == 0) report.supervisor_pid = process.pid;
    }
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
  const Result<std::vector<OwnMount>> mounts = ListMounts(instance);
  for (const OwnMount& mount : mounts.ok() ? *mounts : std::vector<OwnMount>()) {
    const bool is_alive =
        mount.state == MountState::kMounted || mount.state == MountState::kMounting;
    report.mounts.push_back({mount.record, is_alive});
    if (mount.is_here) report.mounts.back().record.mount_point = mount.entry.mount_point;
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
