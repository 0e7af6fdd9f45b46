#include "host/service/instance_control.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <iostream>
#include <sstream>
#include <string_view>

#include "cachecore/base/deadline.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/protocol/control_messages.h"
#include "cachecore/system/files.h"
#include "cachecore/system/process.h"
#include "cachecore/system/subprocess.h"
#include "host/config/config_settings.h"
#include "host/config/loopback_address.h"
#include "host/instance/control_client.h"
#include "host/instance/fetcher_user.h"
#include "host/instance/instance_processes.h"
#include "host/instance/lock_file.h"
#include "host/instance/supervisor_process.h"
#include "host/instance/systemd_unit.h"
#include "host/instance/trusted_directory.h"
#include "host/mounts/fuse_abort.h"
#include "host/mounts/fuse_release.h"
#include "host/mounts/layer_mounts.h"
#include "host/mounts/own_mounts.h"
#include "host/service/adoption.h"
#include "host/supervisor/supervise_fields.h"

namespace host {
namespace {

namespace control = cachecore::control;
using cachecore::Deadline;
using cachecore::EndProcess;
using cachecore::FindProgram;
using cachecore::JsonBool;
using cachecore::JsonField;
using cachecore::JsonInt;
using cachecore::JsonString;
using cachecore::ListDirectory;
using cachecore::MakeDirectories;
using cachecore::MakePrivateDirectory;
using cachecore::MountEntry;
using cachecore::PinnedProcess;
using cachecore::PinPidFile;
using cachecore::PinProcess;
using cachecore::ReadFile;
using cachecore::ReadJsonFile;
using cachecore::ReadMountTable;
using cachecore::RecordText;
using cachecore::RemoveAbandonedWrites;
using cachecore::Result;
using cachecore::RunsProgram;
using cachecore::SpawnDetached;
using cachecore::Status;
using cachecore::StopSignalsIgnored;
using cachecore::UniqueFd;
using cachecore::WaitUntil;
using cachecore::WriteFileAtomically;
using control::Operation;
using nlohmann::json;
using std::chrono::milliseconds;

constexpr milliseconds kPingTimeout{1000};
constexpr milliseconds kAttachTimeout{5000};
constexpr milliseconds kStopTimeout{30000};
constexpr milliseconds kOrphanTermTimeout{5000};
constexpr milliseconds kOrphanKillTimeout{2000};

// Whether a process has the control socket open, even if only the store of a dead daemon.
bool IsListening(const Instance& instance) {
  const Status ping =
      CallControl(instance.ControlSocket(), control::EncodeRequest({.operation = Operation::kPing}),
                  Deadline(kPingTimeout))
          .status();
  return ping.error() != ENOENT && ping.error() != ECONNREFUSED;
}

struct LogMark {
  const char* service;
  std::string path;
  size_t offset;
};

std::vector<LogMark> MarkLogs(const Instance& instance) {
  std::vector<LogMark> marks;
  for (const char* service : {kDaemon, kFetcher, kSupervisor}) {
    struct stat info;
    const std::string path = instance.LogFile(service);
    const bool exists = stat(path.c_str(), &info) == 0;
    marks.push_back({service, path, exists ? static_cast<size_t>(info.st_size) : 0});
  }
  return marks;
}

// The first service that has died since the instance was started; null when none has.
// `how` becomes "killed by signal ..." when a signal has ended it.
const LogMark* DeadService(const Instance& instance, const std::vector<LogMark>& marks,
                           std::string* how) {
  const json status = ReadSuperviseStatus(instance);
  for (const json& service : JsonField(status, supervise_field::kServices)) {
    if (JsonInt(service, supervise_field::kRestarts) == 0 &&
        JsonInt(service, supervise_field::kRetryAtMs) == 0) {
      continue;
    }
    const std::string last_exit = JsonString(service, supervise_field::kLastExit);
    if (last_exit.find("signal") != std::string::npos) *how = last_exit;
    for (const LogMark& mark : marks) {
      if (JsonString(service, supervise_field::kName) == mark.service) return &mark;
    }
  }
  return nullptr;
}

Status DiedAtStart(const Instance& instance, const LogMark& mark, const std::string& how) {
  std::string line = LastErrorLine(mark.path, mark.offset);
  const std::string name = mark.service;
  if (line.starts_with(name + ": ")) line.erase(0, name.size() + 2);
  std::string why = line.empty() ? " ended without a word" : ": " + line;
  // What it logged before a signal may have nothing to do with it.
  if (!how.empty()) why = " ended: " + how + (line.empty() ? "" : "; it said last: " + line);
  return Status(ECHILD, "instance " + instance.name() + " did not start: " + name + why +
                            " (log: " + mark.path + ")");
}

Status MakeInstanceDirectories(const Instance& instance, const Settings& settings) {
  const std::string cache_dir = settings.CacheDirFor(instance);
  RETURN_IF_ERROR(MakeTrustedDirectory(instance.StateDir(), kInstanceDirMode));
  RETURN_IF_ERROR(MakePrivateDirectory(instance.SourcesDir()));
  RETURN_IF_ERROR(MakeTrustedDirectory(instance.LogDir(), 0750));
  RETURN_IF_ERROR(MakePrivateDirectory(instance.RunDir()));
  RETURN_IF_ERROR(MakeTrustedDirectory(instance.MountsDir(), 0700));
  RETURN_IF_ERROR(MakeDirectories(instance.FuseDir(), 0700));
  const Status made = MakeDirectories(cache_dir, 0700);
  if (!made.ok()) {
    return Status(made.error(), "no cache directory " + cache_dir + ": " + made.message() +
                                    "; choose another with --cache-dir");
  }
  RETURN_IF_ERROR(CheckTrusted(cache_dir).WithContext("the cache directory"));
  if (access(cache_dir.c_str(), W_OK | X_OK) != 0) {
    return Status::FromErrno(errno, "the cache directory " + cache_dir +
                                        " is not writable; choose another with --cache-dir");
  }
  return {};
}

// Whether our child has ended.  It is not reaped, so that its pid stays its own.
bool HasEnded(pid_t child, std::string* how) {
  siginfo_t info = {};
  if (waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT) != 0) return true;
  if (info.si_pid == 0) return false;
  if (info.si_code != CLD_EXITED) {
    *how = "killed by signal " + std::to_string(info.si_status) + " (" + strsignal(info.si_status) +
           ")";
  }
  return true;
}

Status WaitUntilServing(const Instance& instance, pid_t supervisor,
                        const std::vector<LogMark>& marks, const Deadline& deadline) {
  const LogMark* dead = nullptr;
  std::string how;
  const auto decided = [&] {
    if (AnswersPing(instance)) return true;
    // A standby may have taken over.
    if (HasEnded(supervisor, &how) && SupervisorPid(instance) == 0) dead = &marks.back();
    if (dead == nullptr) dead = DeadService(instance, marks, &how);
    return dead != nullptr;
  };
  const Status waited = WaitUntil(decided, deadline);
  if (dead != nullptr) return DiedAtStart(instance, *dead, how);
  if (waited.error() == ETIMEDOUT) {
    return Status(ETIMEDOUT,
                  "instance " + instance.name() +
                      " did not start before time ran out (--timeout waits longer; log: " +
                      instance.LogFile(kDaemon) + ")");
  }
  return waited;
}

// With the policy `fail` an object can't be opened before the fetcher is there.  One that stays
// away is no error here: the mount's own timeout speaks of it.
Status WaitForFetcher(const Instance& instance, const std::vector<LogMark>& marks,
                      const Deadline& deadline) {
  const LogMark* dead = nullptr;
  std::string how;
  const auto decided = [&] {
    const Result<json> status = CallControl(
        instance.ControlSocket(), control::EncodeRequest({.operation = Operation::kStatus}),
        Deadline(kPingTimeout));
    if (status.ok() &&
        JsonBool(JsonField(*status, control::field::kFetcher), control::field::kAttached))
      return true;
    dead = DeadService(instance, marks, &how);
    return dead != nullptr;
  };
  const Status waited =
      WaitUntil(decided, Deadline(std::min(kAttachTimeout, deadline.Remaining())));
  if (dead != nullptr) return DiedAtStart(instance, *dead, how);
  return waited.error() == ETIMEDOUT ? Status() : waited;
}

// What the configuration files say is a part of it; what was given, to be compared with, beside it.
std::string SettingsText(const Settings& settings, const Settings& given) {
  json value = settings.ToJson();
  value[kGivenSettings] = given.ToJson();
  return RecordText(value) + "\n";
}

// Whether the port of the metrics can be had.  Later it is tried again and again, by a process whose
// log nobody watches.  A port of the configuration holds up no mount: at a boot nobody is there to
// choose another.
Status CheckMetricsPort(const Instance& instance, const Settings& settings, const Settings& given) {
  if (settings.metrics_listen.empty()) return {};
  // The one of a supervisor that was killed: the next supervisor ends it.
  const PinnedProcess server = PinPidFile(instance.PidFile(kMetricsService));
  const std::string listen = "--listen=" + settings.metrics_listen;
  if (server.pid != 0 && RunsProgram(server.pid, kMetricsProgram, listen)) return {};
  const Status listened = ListenOnLoopback(settings.metrics_listen).status();
  if (listened.ok()) return {};
  const std::string trouble = "metrics cannot be served on " + settings.metrics_listen + ": " +
                              std::strerror(listened.error()) + "; choose another port with ";
  if (!given.metrics_listen.empty()) return Status(listened.error(), trouble + "--metrics-listen");
  std::cerr << "holdfast: " << trouble << "metrics-listen in " << instance.ConfigFile()
            << "; until the port is free only metrics.sock has them\n";
  return {};
}

Status Start(const Instance& instance, const Settings& given, const Deadline& deadline) {
  ASSIGN_OR_RETURN(const std::string program, FindProgram("holdfast"));
  ASSIGN_OR_RETURN(const Settings settings, WithConfig(instance, given, deadline));
  RETURN_IF_ERROR(FindFetcherUser(settings.fetcher_user).status());  // Before anything is made.
  RETURN_IF_ERROR(CheckMetricsPort(instance, settings, given));
  CleanStart(instance);
  RETURN_IF_ERROR(MakeInstanceDirectories(instance, settings));
  RETURN_IF_ERROR(
      WriteFileAtomically(instance.SettingsFile(), SettingsText(settings, given), 0600));
  const std::vector<LogMark> marks = MarkLogs(instance);
  const std::string root = instance.root().empty() ? "/" : instance.root();
  ASSIGN_OR_RETURN(const pid_t supervisor, SpawnDetached({program, "supervise", "--root", root,
                                                          "--instance", instance.name()},
                                                         instance.LogFile(kSupervisor)));
  Status status = WaitUntilServing(instance, supervisor, marks, deadline);
  if (status.ok() && !settings.HasCachefilesDevice())
    status = WaitForFetcher(instance, marks, deadline);
  // By its pid, which is still its own: it may not have written its file yet.
  if (!status.ok()) {
    EndProcess(PinProcess(supervisor), SIGTERM, kStopTimeout)
        .IgnoreError("the error that led here is the one to tell");
    TerminateSupervisor(instance, kStopTimeout)
        .IgnoreError("the error that led here is the one to tell");
  }
  return status;
}

// Without its sockets and pid files a living instance can't be used, only stopped.
Status CheckNotCutOff(const Instance& instance) {
  if (access(instance.MountsDir().c_str(), F_OK) == 0 &&
      access(instance.PidFile(kDaemon).c_str(), F_OK) == 0) {
    return {};
  }
  const std::vector<InstanceProcess> living = FindInstanceProcesses(instance);
  if (living.empty()) return {};
  return Status(EBUSY, "instance " + instance.name() + " runs (" + living.front().program +
                           " is process " + std::to_string(living.front().pid) +
                           "), but its files in " + instance.RunDir() +
                           " are gone; end it: holdfast stop" + instance.Flags());
}

// Daemons whose supervisor was killed.
Status EndOrphans(const Instance& instance) {
  for (const char* service : {kMetricsService, kFetcher, kDaemon}) {
    const PinnedProcess process = PinService(instance, service);
    if (EndProcess(process, SIGTERM, kOrphanTermTimeout).ok()) continue;
    RETURN_IF_ERROR(EndProcess(process, SIGKILL, kOrphanKillTimeout));
  }
  return {};
}

bool IsStartedWith(const Instance& instance, const Settings& settings) {
  const Result<nlohmann::json> file = ReadJsonFile(instance.SettingsFile());
  return file.ok() && GivenSettings(*file) == settings;
}

}  // namespace

Result<UniqueFd> LockInstance(const Instance& instance, const Deadline& deadline) {
  return HoldLock(RunRoot(instance.root()), instance.name(), deadline);
}

bool AnswersPing(const Instance& instance) {
  return CallControl(instance.ControlSocket(),
                     control::EncodeRequest({.operation = Operation::kPing}),
                     Deadline(kPingTimeout))
      .ok();
}

Status WhyUnasked(const Instance& instance, const Status& error) {
  switch (error.error()) {
    case EACCES:
    case EPERM:
      return Status(EACCES, "asking instance " + instance.name() + " needs root; use sudo");
    case ENOENT:
    case ECONNREFUSED:
      return Status(error.error(), "instance " + instance.name() +
                                       " is not running (holdfast status lists those that are; a "
                                       "mount starts it: holdfast mount" +
                                       instance.Flags() + " URL MOUNTPOINT)");
    default:
      return error;
  }
}

json ReadSuperviseStatus(const Instance& instance) {
  const Result<json> status = ReadJsonFile(instance.SuperviseStatus());
  return status.ok() ? *status : json::object();
}

bool IsService(const Instance& instance, const char* service, pid_t pid) {
  if (std::string_view(service) == kMetricsService) {
    return RunsProgram(pid, kMetricsProgram, instance.name());
  }
  if (std::string_view(service) != kDaemon) {
    return RunsProgram(pid, kFetcherProgram, "--device=" + instance.DeviceSocket());
  }
  for (const std::string& argument : RunDirArguments(instance)) {
    if (RunsProgram(pid, kDaemon, argument)) return true;
  }
  return false;
}

PinnedProcess PinService(const Instance& instance, const char* service) {
  PinnedProcess process = PinPidFile(instance.PidFile(service));
  // The order matters: the pid is pinned first, then looked at.
  if (process.pid == 0 || !IsService(instance, service, process.pid)) return {};
  return process;
}

pid_t ServicePid(const Instance& instance, const char* service) {
  return PinService(instance, service).pid;
}

void DetachDeadMounts(const Instance& instance) {
  if (SupervisorPid(instance) == 0 && ServicePid(instance, kDaemon) == 0 &&
      !IsListening(instance) && FindInstanceProcesses(instance).empty()) {
    DetachLostMounts(instance);
  }
}

Result<bool> EnsureRunning(const Instance& instance, const Settings& settings,
                           const Deadline& deadline) {
  if (IsAbandoned(instance)) RETURN_IF_ERROR(AdoptAbandoned(instance, deadline));
  // A supervised daemon that doesn't answer is being restarted, or about to be.  It is asked no more
  // once it has answered: were it killed then, its instance would look like a stopped one.
  bool runs = false;
  const auto answers_or_stopped = [&] {
    runs = AnswersPing(instance);
    if (runs) return true;
    return SupervisorPid(instance) == 0 &&
           (ServicePid(instance, kDaemon) > 0 || !IsListening(instance));
  };
  const Status waited = WaitUntil(answers_or_stopped, deadline);
  if (waited.error() == ETIMEDOUT) {
    const pid_t supervisor = SupervisorPid(instance);
    const std::string who = supervisor > 0
                                ? "its supervisor is process " + std::to_string(supervisor)
                                : "it was not started by holdfast mount";
    const Status stopped = CheckSupervisorRuns(instance);
    return Status(ETIMEDOUT, "instance " + instance.name() + " does not answer; " +
                                 (stopped.ok() ? who : stopped.message()) +
                                 " (log: " + instance.LogFile(kDaemon) + ")");
  }
  RETURN_IF_ERROR(waited);
  if (!runs && SystemdRuns(instance)) {  // Its first start: there is no socket yet.
    const auto answers = [&] { return AnswersPing(instance); };
    RETURN_IF_ERROR(WaitUntil(answers, deadline).WithContext(DaemonUnit(instance)));
    runs = true;
  }
  if (runs) {
    RETURN_IF_ERROR(RestoreFuse(instance));
    if (settings.IsDefault() || IsStartedWith(instance, settings)) return false;
    if (IsRunElsewhere(instance)) {
      return Status(EBUSY, "instance " + instance.name() +
                               " was not started by holdfast mount; give it its settings where it "
                               "is started (for systemd: " +
                               instance.ConfigFile() + ")");
    }
    return Status(EBUSY, "instance " + instance.name() +
                             " is running with other settings; they can only be given when it "
                             "starts (unmount what it has mounted and holdfast stop" +
                             instance.Flags() + ", or choose another --instance)");
  }
  RETURN_IF_ERROR(CheckNotCutOff(instance));
  // A fetcher that is left goes on, but not with other settings.
  if (!IsStartedWith(instance, settings)) RETURN_IF_ERROR(EndOrphans(instance));
  const bool is_new = access(instance.StateDir().c_str(), F_OK) != 0 && errno == ENOENT;
  const Status started = Start(instance, settings, deadline);
  if (started.ok()) return true;
  const StopSignalsIgnored until_undone;
  const Status stopped = StopInstance(instance);
  if (stopped.ok() && is_new) RemoveState(instance);
  if (stopped.ok()) return started;
  return Status(started.error(), started.message() + "; and then: " + stopped.message());
}

bool IsRunElsewhere(const Instance& instance) {
  // Of one that is being restarted the service manager keeps the sockets.
  return SupervisorPid(instance) == 0 && ServicePid(instance, kDaemon) == 0 &&
         (IsListening(instance) || SystemdRuns(instance));
}

Status StopInstance(const Instance& instance) {
  if (IsRunElsewhere(instance)) {
    return Status(EBUSY, "instance " + instance.name() +
                             " was not started by holdfast mount; stop it where it was started "
                             "(for systemd: systemctl stop " +
                             DaemonUnit(instance) + ")");
  }
  RETURN_IF_ERROR(ReleaseFuse(instance));  // Asked before anything is ended.
  RETURN_IF_ERROR(TerminateSupervisor(instance, kStopTimeout));
  RETURN_IF_ERROR(EndOrphans(instance));
  RETURN_IF_ERROR(EndInstanceProcesses(instance));
  ClearRunDirectory(instance);
  return {};
}

Result<std::vector<MountRecord>> LiveMounts(const Instance& instance) {
  ASSIGN_OR_RETURN(const std::vector<OwnMount> mounts, ListMounts(instance));
  std::vector<MountRecord> live;
  for (const OwnMount& mount : mounts) {
    if (mount.state == MountState::kMounting || mount.state == MountState::kMounted) {
      live.push_back(mount.record);
    }
  }
  return live;
}

Result<std::vector<MountRecord>> AskedMounts(const Instance& instance) {
  ASSIGN_OR_RETURN(std::vector<MountRecord> mounts, LiveMounts(instance));
  HideLayers(&mounts);
  return mounts;
}

std::string LastErrorLine(const std::string& log, size_t offset) {
  const Result<std::string> text = ReadFile(log);
  if (!text.ok()) return "";
  if (offset > text->size()) offset = 0;  // Its supervisor has cut it meanwhile.
  std::istringstream lines(text->substr(offset));
  std::string last, last_error;
  for (std::string line; std::getline(lines, line);) {
    // glog: "E20261123 00:16:48.123456   123 daemon.cc:12] message"; older ones write no year.
    const size_t bracket = line.find("] ");
    const size_t date_end = line.find_first_not_of("0123456789", 1);
    const bool has_prefix = !line.empty() && std::strchr("IWEF", line[0]) != nullptr &&
                            (date_end == 5 || date_end == 9) && bracket != std::string::npos;
    const bool is_error = has_prefix && (line[0] == 'E' || line[0] == 'F');
    const std::string message = has_prefix ? line.substr(bracket + 2) : line;
    if (message.find_first_not_of(" \t") == std::string::npos) continue;
    (is_error ? last_error : last) = message;
  }
  return last_error.empty() ? last : last_error;
}

}  // namespace host
