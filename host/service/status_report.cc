#include "host/service/status_report.h"

#include <cerrno>

#include "cachecore/base/json_fields.h"
#include "cachecore/protocol/control_messages.h"
#include "cachecore/system/files.h"
#include "host/instance/control_client.h"
#include "host/instance/instance_processes.h"
#include "host/instance/supervisor_process.h"
#include "host/instance/systemd_unit.h"
#include "host/mounts/layer_mounts.h"
#include "host/mounts/own_mounts.h"
#include "host/service/adoption.h"
#include "host/service/instance_control.h"
#include "host/supervisor/supervise_fields.h"

namespace host {
namespace {

using cachecore::Deadline;
using cachecore::JsonInt;
using cachecore::JsonString;
using cachecore::Result;
using cachecore::Status;
using nlohmann::json;

constexpr std::chrono::milliseconds kStatusTimeout{2000};

json MountToJson(const MountStatus& mount) {
  json value = mount.record.ToJson();
  value.erase("version");
  value["alive"] = mount.alive;
  return value;
}

// Of the supervisor's status file, and null where no supervisor says it.
json StandbyToJson(const StatusReport& report) {
  const std::optional<StandbyState> standby = StandbyOf(report);
  if (!standby) return {};
  return {{"pid", standby->pid}, {"why_none", standby->why_none}};
}

}  // namespace

std::optional<StandbyState> StandbyOf(const StatusReport& report) {
  if (report.supervisor_pid <= 0 || !report.supervise.contains(supervise_field::kStandby)) {
    return std::nullopt;
  }
  StandbyState standby;
  standby.pid = static_cast<pid_t>(JsonInt(report.supervise, supervise_field::kStandby));
  if (standby.pid == 0) {
    standby.why_none = JsonString(report.supervise, supervise_field::kWhyNoStandby);
  }
  return standby;
}

StatusReport GatherStatus(const Instance& instance) {
  StatusReport report;
  report.instance = instance.name();
  report.flags = instance.Flags();
  report.root_flag = instance.RootFlag();
  report.supervisor_pid = SupervisorPid(instance);
  if (report.supervisor_pid > 0) {
    const Status runs = CheckSupervisorRuns(instance);
    if (!runs.ok()) report.stopped = runs.message();
  }
  if (report.supervisor_pid == 0 && SystemdRuns(instance)) {
    report.systemd_unit = DaemonUnit(instance);
  }
  // Its files may be gone while it lives.
  if (report.supervisor_pid == 0 && report.systemd_unit.empty() && !AnswersPing(instance)) {
    for (const InstanceProcess& process : FindInstanceProcesses(instance)) {
      if (process.program != "holdfast") {
        report.left_over.emplace_back(process.pid, process.program);
      } else if (report.supervisor_pid == 0) {
        report.supervisor_pid = process.pid;
      }
    }
  }
  report.is_abandoned = IsAbandoned(instance);
  report.supervise = ReadSuperviseStatus(instance);
  report.daemon = json::object();
  Result<json> daemon = CallControl(
      instance.ControlSocket(),
      cachecore::control::EncodeRequest({.operation = cachecore::control::Operation::kStatus}),
      Deadline(kStatusTimeout));
  if (daemon.ok()) {
    report.daemon = std::move(daemon).value();
  } else {
    report.daemon_error = daemon.status().message();
    const int error = daemon.status().error();
    report.is_known = error != EACCES && error != EPERM;
    if (!report.is_known) report.daemon_error += "; needs root: use sudo";
  }
  Result<std::vector<OwnMount>> mounts = ListMounts(instance);
  if (mounts.ok()) HideLayers(&*mounts);
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
    json left_over = json::array();
    for (const auto& [pid, program] : report.left_over) {
      left_over.push_back({{"pid", pid}, {"program", program}});
    }
    const bool is_known = report.is_known || report.IsRunning();
    instances.push_back({{"name", report.instance},
                         {"running", is_known ? json(report.IsRunning()) : json()},
                         {"supervisor_pid", is_known ? json(report.supervisor_pid) : json()},
                         {"stopped", report.stopped},
                         {"standby", StandbyToJson(report)},
                         {"left_over", left_over},
                         {"systemd_unit", report.systemd_unit},
                         {"supervise", report.supervise},
                         {"daemon", report.daemon},
                         {"daemon_error", report.daemon_error},
                         {"mounts", mounts}});
  }
  return {{"version", 1}, {"instances", instances}};
}

}  // namespace host
