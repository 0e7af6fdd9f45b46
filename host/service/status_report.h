// StatusReport: everything known about an instance, gathered and put into words.
//
// Model    three sources, each of which may be missing: the supervisor's status file, the daemon's
//          control socket and the mount records.  What is dead is reported as dead, never as an
//          error; what this user may not ask is reported as not known.
// Threads  pure functions, but for Gather.
// Cost     Gather waits at most two seconds for a daemon that hangs.
// See      docs/protocol.md "The control socket"; holdfast(1) "holdfast status"

#ifndef HOST_SERVICE_STATUS_REPORT_H_
#define HOST_SERVICE_STATUS_REPORT_H_

#include <sys/types.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "host/instance/instance.h"
#include "host/mounts/mount_record.h"

namespace host {

struct MountStatus {
  MountRecord record;
  bool alive = false;  // It is in the mount table, or being mounted.
};

struct StatusReport {
  std::string instance;
  pid_t supervisor_pid = 0;  // 0: none.
  std::string stopped;       // CheckSupervisorRuns; "": nothing has stopped it.
  std::string systemd_unit;  // "": systemd does not run it.
  nlohmann::json supervise;  // The supervisor's status file; empty without one.
  nlohmann::json daemon;     // The answer to {"op":"status"}; empty when there is none.
  std::string daemon_error;  // Why there is none.
  bool is_known = true;      // False: the daemon may not be asked by this user.
  // Without a supervisor and a daemon that serves: what else of the instance runs.
  std::vector<std::pair<pid_t, std::string>> left_over;
  bool is_abandoned = false;  // IsAbandoned of host/service/adoption.h.
  std::string flags;          // Instance::Flags.
  std::string root_flag;
  std::vector<MountStatus> mounts;

  bool IsRunning() const { return supervisor_pid > 0 || !systemd_unit.empty() || !daemon.empty(); }
};

struct StandbyState {
  pid_t pid = 0;         // 0: none.
  std::string why_none;  // "" where an older supervisor does not say it.
};
// Nothing without a running supervisor that says it.
std::optional<StandbyState> StandbyOf(const StatusReport& report);

StatusReport GatherStatus(const Instance& instance);
nlohmann::json StatusToJson(const std::vector<StatusReport>& reports);
// For people; ends with a newline.  `now_unix_s` is what ages are counted from.
std::string StatusToText(const std::vector<StatusReport>& reports, int64_t now_unix_s);

}  // namespace host

#endif  // HOST_SERVICE_STATUS_REPORT_H_
