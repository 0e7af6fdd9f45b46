// StatusReport: everything known about an instance, gathered and put into words.
//
// Model    three sources, each of which may be missing: the supervisor's status file, the daemon's
//          control socket and the mount records.  What is dead is reported as dead, never as an
//          error.
// Threads  pure functions, but for Gather.
// Cost     Gather waits at most two seconds for a daemon that hangs.
// See      docs/protocol.md, control socket; holdfast(1) STATUS

#ifndef CLI_STATUS_REPORT_H_
#define CLI_STATUS_REPORT_H_

#include <sys/types.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/instance.h"
#include "cli/mount_record.h"

namespace cli {

struct MountStatus {
  MountRecord record;
  bool alive = false;  // It is in the mount table, or being mounted.
};

struct StatusReport {
  std::string instance;
  pid_t supervisor_pid = 0;  // 0: none.
  std::string systemd_unit;  // "": systemd does not run it.
  nlohmann::json supervise;  // The supervisor's status file; empty without one.
  nlohmann::json daemon;     // The answer to {"op":"status"}; empty when there is none.
  std::string daemon_error;  // Why there is none.
  std::vector<MountStatus> mounts;

  bool IsRunning() const { return supervisor_pid > 0 || !systemd_unit.empty() || !daemon.empty(); }
};

StatusReport GatherStatus(const Instance& instance);
nlohmann::json StatusToJson(const std::vector<StatusReport>& reports);
// For people; ends with a newline.  `now_unix_s` is what ages are counted from.
std::string StatusToText(const std::vector<StatusReport>& reports, int64_t now_unix_s);

}  // namespace cli

#endif  // CLI_STATUS_REPORT_H_
