#include "host/service/upgrade.h"

#include <sys/stat.h>

extern "C" {  // glibc 2.36's header forgets to say so itself.
#include <sys/pidfd.h>
}

#include <cerrno>
#include <csignal>
#include <optional>
#include <sstream>
#include <vector>

#include "cachecore/base/clock.h"
#include "cachecore/base/deadline.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/protocol/control_messages.h"
#include "cachecore/system/files.h"
#include "cachecore/system/process.h"
#include "cachecore/system/subprocess.h"
#include "host/instance/control_client.h"
#include "host/instance/supervisor_process.h"
#include "host/instance/systemd_unit.h"
#include "host/service/adoption.h"
#include "host/service/instance_control.h"
#include "host/supervisor/supervise_fields.h"

namespace host {
namespace {

namespace control = cachecore::control;
using cachecore::Deadline;
using cachecore::Duration;
using cachecore::FindProgram;
using cachecore::JsonField;
using cachecore::JsonInt;
using cachecore::JsonString;
using cachecore::PinnedProcess;
using cachecore::PinProcess;
using cachecore::ProgramEnd;
using cachecore::ReadFile;
using cachecore::Result;
using cachecore::RunProgram;
using cachecore::Status;
using cachecore::WaitUntil;
using control::Operation;
using nlohmann::json;
using std::chrono::milliseconds;

constexpr milliseconds kSwapPingTimeout{500};
constexpr milliseconds kExchangeTime{15000};
// So many lives in a row that never serve are no accident.
constexpr int64_t kFailedStartsMax = 3;

Duration Now() { return cachecore::Clock::Monotonic().Now(); }

Result<json> Ask(const Instance& instance, Operation operation, const Deadline& deadline) {
  return CallControl(instance.ControlSocket(), control::EncodeRequest({.operation = operation}),
                     Deadline(std::min(kSwapPingTimeout, deadline.Remaining())));
}

UpgradeReport::Life LifeOf(const json& answer) {
  const control::PingAnswer ping = control::DecodePing(answer);
  return {static_cast<pid_t>(ping.pid), ping.version};
}

// A Holdfast service that runs, and what it was started with: its program's path, then its flags.
struct RunningService {
  PinnedProcess process;
  std::vector<std::string> arguments;
};

Result<RunningService> FindRunning(const Instance& instance, const char* service, pid_t pid) {
  RunningService running{PinProcess(pid), {}};
  if (running.process.pid == 0 || !IsService(instance, service, pid)) {
    return Status(ESRCH, "process " + std::to_string(pid) + " is none of instance " +
                             instance.name() + "; try again");
  }
  ASSIGN_OR_RETURN(const std::string text, ReadFile("/proc/" + std::to_string(pid) + "/cmdline"));
  std::istringstream stream(text);
  for (std::string argument; std::getline(stream, argument, '\0');) {
    running.arguments.push_back(argument);
  }
  return running;
}

Status AskToEnd(const PinnedProcess& process, const std::string& what) {
  if (pidfd_send_signal(process.pidfd.get(), SIGTERM, nullptr, 0) == 0 || errno == ESRCH) return {};
  return Status::FromErrno(errno, "end " + what);
}

// Runs the program that would take over, with more flags.  EPROTO quotes why it says no.
Status AskProgram(std::vector<std::string> arguments, const std::vector<std::string>& flags,
                  const Deadline& deadline) {
  const std::string program = arguments.front();
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  Result<ProgramEnd> end = RunProgram(arguments, deadline);
  if (!end.ok()) return std::move(end).status().WithContext(program + " " + flags.back());
  if (end->exit_code == 0) return {};
  std::string why = end->output.substr(0, end->output.find('\n'));
  if (why.empty()) why = "exit code " + std::to_string(end->exit_code);
  return Status(EPROTO, program + " cannot take over: " + why);
}

json DaemonService(const Instance& instance) {
  const json status = ReadSuperviseStatus(instance);
  for (const json& service : JsonField(status, supervise_field::kServices)) {
    if (JsonString(service, supervise_field::kName) == kDaemon) return service;
  }
  return json::object();
}

Status DoesNotServe(const Instance& instance, const std::string& program, size_t log_mark) {
  const std::string line = LastErrorLine(instance.LogFile(kDaemon), log_mark);
  const std::string last_exit = JsonString(DaemonService(instance), supervise_field::kLastExit);
  return Status(ECHILD,
                "the new " + program + " does not serve (" + (line.empty() ? last_exit : line) +
                    "); reads wait, nothing is lost: put the old program back at that path, "
                    "and the supervisor's next start takes it (holdfast status)");
}

size_t SizeOf(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 ? static_cast<size_t>(info.st_size) : 0;
}

// Tells the old daemon to end and waits for the next one's answer.
Status SwapDaemon(const Instance& instance, const RunningService& old, const Deadline& deadline,
                  UpgradeReport* report) {
  const size_t log_mark = SizeOf(instance.LogFile(kDaemon));
  const int64_t restarts = JsonInt(DaemonService(instance), "restarts");
  RETURN_IF_ERROR(AskToEnd(old.process, "holdfastd"));
  Duration last_answer = Now();
  bool dies = false;
  const auto served_or_dies = [&] {
    const Duration asked = Now();
    const Result<json> answer = Ask(instance, Operation::kPing, deadline);
    if (answer.ok()) {
      report->new_daemon = LifeOf(*answer);
      if (report->new_daemon.pid != report->old_daemon.pid) return true;
      last_answer = asked;
    }
    dies = JsonInt(DaemonService(instance), "restarts") > restarts + kFailedStartsMax;
    return dies;
  };
  const Status waited = WaitUntil(served_or_dies, deadline);
  if (dies || waited.error() == ETIMEDOUT)
    return DoesNotServe(instance, old.arguments.front(), log_mark);
  report->pause = std::chrono::ceil<milliseconds>(Now() - last_answer);
  return waited;
}

pid_t AttachedFetcher(const Instance& instance, const Deadline& deadline) {
  const Result<json> status = Ask(instance, Operation::kStatus, deadline);
  return status.ok() ? static_cast<pid_t>(JsonInt(JsonField(*status, control::field::kFetcher),
                                                  control::field::kPid))
                     : 0;
}

Status SwapFetcher(const Instance& instance, const RunningService& old, const Deadline& deadline,
                   UpgradeReport* report) {
  RETURN_IF_ERROR(AskToEnd(old.process, "the fetcher"));
  const auto attached = [&] {
    report->new_fetcher = AttachedFetcher(instance, deadline);
    return report->new_fetcher != 0 && report->new_fetcher != report->old_fetcher;
  };
  const Status waited = WaitUntil(attached, deadline);
  if (waited.error() != ETIMEDOUT) return waited;
  return Status(ETIMEDOUT, "holdfastd is upgraded, but the new fetcher does not attach (log: " +
                               instance.LogFile(kFetcher) +
                               "); put its old program back, and the next start takes it");
}

int64_t SinceMs(const json& status) { return JsonInt(status, supervise_field::kSinceMs); }

Status SwapSupervisor(const Instance& instance, const Deadline& deadline, UpgradeReport* report) {
  const PinnedProcess supervisor = PinSupervisor(instance);
  const json before = ReadSuperviseStatus(instance);
  const std::string version = JsonString(before, supervise_field::kVersion);
  report->supervisor = {supervisor.pid, version};
  // One of a version that does not know the signal would end by it, and a program that does not know
  // what it inherits would end the daemons.
  if (supervisor.pid == 0 || version.empty() ||
      JsonInt(before, supervise_field::kPid) != supervisor.pid) {
    return {};
  }
  ASSIGN_OR_RETURN(const std::string program, FindProgram("holdfast"));
  if (!AskProgram({program, "supervise"}, {"--can-exchange"}, deadline).ok()) return {};
  const std::string log = instance.LogFile(kSupervisor);
  const size_t log_mark = SizeOf(log);
  if (pidfd_send_signal(supervisor.pidfd.get(), SIGUSR2, nullptr, 0) != 0 && errno != ESRCH) {
    return Status::FromErrno(errno, "tell the supervisor of the new program");
  }
  json now;
  bool refused = false;
  const auto exchanged = [&] {
    now = ReadSuperviseStatus(instance);
    if (SinceMs(now) != SinceMs(before)) return SupervisorPid(instance) != 0;
    refused = JsonInt(now, supervise_field::kExchangesRefused) !=
              JsonInt(before, supervise_field::kExchangesRefused);
    return refused;
  };
  const Status waited =
      WaitUntil(exchanged, Deadline(std::min(kExchangeTime, deadline.Remaining())));
  if (waited.error() == ETIMEDOUT) {
    return Status(ETIMEDOUT,
                  "the daemons are upgraded, but the supervisor does not go on with its "
                  "new program (" +
                      LastErrorLine(log, log_mark) + "; log: " + log +
                      "); holdfast status tells whether one runs");
  }
  RETURN_IF_ERROR(waited);
  if (refused) {
    report->why_old_supervisor = JsonString(now, supervise_field::kWhyNotExchanged);
    return {};
  }
  report->old_supervisor_version = version;
  report->supervisor = {static_cast<pid_t>(JsonInt(now, supervise_field::kPid)),
                        JsonString(now, supervise_field::kVersion)};
  return {};
}

Status CheckSupervised(const Instance& instance, const Result<json>& ping) {
  if (SupervisorPid(instance) > 0) {
    // It could not start the next daemon.
    return CheckSupervisorRuns(instance).WithContext("instance " + instance.name());
  }
  if (!ping.ok()) {
    return Status(ESRCH,
                  "instance " + instance.name() +
                      " does not run; its next start takes the programs that are there then");
  }
  std::string cure = "; restart its daemons where they were started";
  if (SystemdRuns(instance)) {
    cure = " but by systemd; restart its units: systemctl restart holdfastd@" + instance.name() +
           " holdfast-fetcherd@" + instance.name();
  }
  return Status(EOPNOTSUPP,
                "instance " + instance.name() + " is not run by holdfast supervise" + cure);
}

}  // namespace

Result<UpgradeReport> Upgrade(const Instance& instance, const Deadline& deadline) {
  if (IsAbandoned(instance)) RETURN_IF_ERROR(AdoptAbandoned(instance, deadline));
  const Result<json> ping = Ask(instance, Operation::kPing, deadline);
  RETURN_IF_ERROR(CheckSupervised(instance, ping));
  if (!ping.ok()) {
    return Status(ping.status().error(),
                  "instance " + instance.name() +
                      " does not serve (holdfast status): " + ping.status().message());
  }
  UpgradeReport report;
  report.old_daemon = LifeOf(*ping);
  report.old_fetcher = AttachedFetcher(instance, deadline);
  ASSIGN_OR_RETURN(const RunningService daemon,
                   FindRunning(instance, kDaemon, report.old_daemon.pid));
  RunningService fetcher;
  if (report.old_fetcher > 0) {
    ASSIGN_OR_RETURN(fetcher, FindRunning(instance, kFetcher, report.old_fetcher));
  }
  Status able =
      AskProgram(daemon.arguments,
                 {"--check-pid=" + std::to_string(daemon.process.pid), "--check-state"}, deadline);
  // That it runs at all; --version makes it look at nothing.
  if (able.ok() && fetcher.process.pid != 0) {
    able = AskProgram({fetcher.arguments.front()}, {"--version"}, deadline);
  }
  if (!able.ok()) {
    return Status(able.error(), able.message() + "; the old one (pid " +
                                    std::to_string(report.old_daemon.pid) + ", version " +
                                    report.old_daemon.version + ") serves on");
  }
  RETURN_IF_ERROR(SwapDaemon(instance, daemon, deadline, &report));
  if (fetcher.process.pid != 0) RETURN_IF_ERROR(SwapFetcher(instance, fetcher, deadline, &report));
  RETURN_IF_ERROR(SwapSupervisor(instance, deadline, &report));
  return report;
}

}  // namespace host
