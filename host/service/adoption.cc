#include "host/service/adoption.h"

#include <poll.h>
#include <sys/stat.h>

#include <cerrno>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "cachecore/base/json_fields.h"
#include "cachecore/system/files.h"
#include "cachecore/system/process.h"
#include "cachecore/system/subprocess.h"
#include "host/instance/supervisor_process.h"
#include "host/service/instance_control.h"
#include "host/supervisor/supervise_fields.h"

namespace host {
namespace {

using cachecore::Deadline;
using cachecore::FindProgram;
using cachecore::JsonInt;
using cachecore::PinnedProcess;
using cachecore::PinProcess;
using cachecore::Result;
using cachecore::SpawnDetached;
using cachecore::Status;
using cachecore::WaitUntil;

// Our child, which is not reaped: its pid stays its own.
bool HasEnded(const PinnedProcess& child) {
  pollfd entry = {child.pidfd.get(), POLLIN, 0};
  return child.pid == 0 || poll(&entry, 1, 0) > 0;
}

constexpr char kFlags[] = "flags";

// Of the supervisor that was lost.
std::vector<std::string> LastFlags(const Instance& instance) {
  const Result<nlohmann::json> record = cachecore::ReadJsonFile(instance.SuperviseFlags());
  return record.ok() ? cachecore::JsonStrings(*record, kFlags) : std::vector<std::string>();
}

// It has written its status once it has the descriptors.
bool Supervises(const Instance& instance) {
  const pid_t pid = SupervisorPid(instance);
  return pid > 0 && JsonInt(ReadSuperviseStatus(instance), supervise_field::kPid) == pid;
}

}  // namespace

Status KeepSuperviseFlags(const Instance& instance, const std::vector<std::string>& flags) {
  const nlohmann::json record = {{kFlags, flags}};
  return cachecore::WriteFileAtomically(instance.SuperviseFlags(), cachecore::RecordText(record),
                                        0600);
}

bool IsAbandoned(const Instance& instance) {
  return SupervisorPid(instance) == 0 && ServicePid(instance, kDaemon) > 0;
}

Status AdoptAbandoned(const Instance& instance, const Deadline& deadline) {
  ASSIGN_OR_RETURN(const std::string program, FindProgram("holdfast"));
  const std::string log = instance.LogFile(kSupervisor);
  struct stat info;
  const size_t log_mark = stat(log.c_str(), &info) == 0 ? static_cast<size_t>(info.st_size) : 0;
  const std::string root = instance.root().empty() ? "/" : instance.root();
  std::vector<std::string> command = {program, "supervise",  "--root",
                                      root,    "--instance", instance.name()};
  for (std::string& flag : LastFlags(instance)) command.push_back(std::move(flag));
  ASSIGN_OR_RETURN(const pid_t pid, SpawnDetached(command, log));
  const PinnedProcess child = PinProcess(pid);
  bool adopted = false;
  const auto decided = [&] {
    adopted = Supervises(instance);
    return adopted || (HasEnded(child) && SupervisorPid(instance) == 0);
  };
  RETURN_IF_ERROR(
      WaitUntil(decided, deadline).WithContext("a new supervisor for instance " + instance.name()));
  if (!adopted) {
    const std::string line = LastErrorLine(log, log_mark);
    return Status(ECHILD, "instance " + instance.name() +
                              " has lost its supervisor, and no other could take its place" +
                              (line.empty() ? "" : ": " + line) + " (log: " + log + ")");
  }
  std::cerr << "holdfast: instance " << instance.name() << " had lost its supervisor; process "
            << SupervisorPid(instance) << " goes on in its place\n";
  return {};
}

}  // namespace host
