#include "cli/forced_umount.h"

#include <poll.h>
#include <sys/file.h>
#include <unistd.h>

extern "C" {  // glibc 2.36's header forgets to say so itself.
#include <sys/pidfd.h>
}

#include <cerrno>
#include <csignal>
#include <iostream>
#include <string>
#include <vector>

#include "cachecore/unique_fd.h"
#include "cli/control_client.h"
#include "cli/deadline.h"
#include "cli/instance_control.h"
#include "cli/object_lease.h"
#include "cli/own_mounts.h"
#include "cli/process.h"
#include "cli/supervisor_setup.h"
#include "cli/systemd_unit.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
using std::chrono::milliseconds;

// Together with the wait for the instance's lock they stay below kForceTimeout.
constexpr milliseconds kShutTimeout{600};
constexpr milliseconds kShutMoment{100};
constexpr milliseconds kSupervisorTimeout{700};
constexpr milliseconds kTermTimeout{1200};
constexpr milliseconds kKillTimeout{700};

std::string ListOf(const std::vector<MountRecord>& mounts) {
  std::string list;
  for (const MountRecord& mount : mounts) list += (list.empty() ? "" : ", ") + mount.mount_point;
  return list;
}

bool ShowsSameImage(const MountRecord& a, const MountRecord& b) {
  return a.volume == b.volume && a.object == b.object;
}

// Has the daemon end the reads of one image, and refuse those that would have to wait.
Status Shut(const Instance& instance, const MountRecord& record) {
  return CallControl(instance.ControlSocket(),
                     {{"op", "shut"}, {"volume", record.volume}, {"object", record.object}},
                     Deadline(kShutTimeout))
      .status();
}

// Lets the image's other mounts go on; not at once, for the kernel tries a page whose read-ahead
// has failed a second time.
void Reopen(const Instance& instance, const MountRecord& other) {
  poll(nullptr, 0, static_cast<int>(kShutMoment.count()));
  const Status acquired = CallControl(instance.ControlSocket(),
                                      {{"op", "acquire"},
                                       {"volume", other.volume},
                                       {"object", other.object},
                                       {"timeout_ms", kShutTimeout.count()}},
                                      Deadline(kShutTimeout))
                              .status();
  std::cerr << "holdfast: " << other.mount_point << " shows the same image: reads that waited "
            << "there have failed too"
            << (acquired.ok() ? "" : ", and fail until it is mounted again: " + acquired.message())
            << "\n";
}

// A process of the instance that was signalled to end.
struct Ending {
  const char* service;
  UniqueFd pidfd;
};

bool WaitGone(const Ending& process, const Deadline& deadline) {
  pollfd entry = {process.pidfd.get(), POLLIN, 0};
  return poll(&entry, 1, static_cast<int>(deadline.Remaining().count())) > 0;
}

// SIGTERM lets a daemon write down what it has; one that hangs is killed.
Status EndServices(const Instance& instance) {
  std::vector<Ending> processes;
  for (const char* service : {kFetcher, kDaemon}) {
    UniqueFd pidfd = PinService(instance, service).pidfd;
    if (!pidfd.valid()) continue;
    pidfd_send_signal(pidfd.get(), SIGTERM, nullptr, 0);
    pidfd_send_signal(pidfd.get(), SIGCONT, nullptr, 0);  // Stopped, it would not hear the other.
    processes.push_back({service, std::move(pidfd)});
  }
  const Deadline term_deadline(kTermTimeout);
  std::erase_if(processes, [&](const Ending& process) { return WaitGone(process, term_deadline); });
  for (const Ending& process : processes) {
    pidfd_send_signal(process.pidfd.get(), SIGKILL, nullptr, 0);
  }
  const Deadline kill_deadline(kKillTimeout);
  std::erase_if(processes, [&](const Ending& process) { return WaitGone(process, kill_deadline); });
  if (processes.empty()) return {};
  return Status(EBUSY, std::string(processes.front().service) + " of instance " + instance.name() +
                           " does not end even on SIGKILL; its mounts are gone");
}

// Kills the supervisor and waits until no child of its is about to become a daemon: the lock is
// such a child's too.  Held while the result is open, it keeps new supervisors away.  Best effort.
UniqueFd EndSupervisor(const Instance& instance) {
  const Status ended = EndProcess(PinSupervisor(instance), SIGKILL, kSupervisorTimeout);
  if (!ended.ok()) std::cerr << "holdfast: supervisor: " << ended.message() << "\n";
  UniqueFd lock;
  const auto locked = [&] {
    Result<UniqueFd> result = LockRunDir(instance.RunDir());
    if (result.ok()) lock = std::move(result).value();
    return result.status().error() != EBUSY;
  };
  const Status waited = WaitUntil(locked, Deadline(kSupervisorTimeout));
  if (!waited.ok()) std::cerr << "holdfast: supervisor's lock: " << waited.message() << "\n";
  return lock;
}

// Whether somebody else, such as systemd, runs the daemons.  The lock file outlives its supervisor.
bool IsForeign(const Instance& instance) {
  if (access((instance.RunDir() + "/supervise.lock").c_str(), F_OK) != 0) return true;
  return SupervisorPid(instance) == 0 && SystemdRuns(instance);
}

// The supervisor first: it would start again what is ended.
Status EndInstance(const Instance& instance) {
  if (IsForeign(instance)) {
    DetachMounts(instance);
    std::cerr << "holdfast: instance " << instance.name()
              << " is not supervised by holdfast; its daemons were left to whoever started them "
                 "(for systemd: systemctl stop "
              << DaemonUnit(instance) << ")\n";
    return {};
  }
  const UniqueFd lock = EndSupervisor(instance);
  DetachMounts(instance);
  RETURN_IF_ERROR(EndServices(instance));
  ClearRunDirectory(instance);
  return {};
}

}  // namespace

Status ForceUmount(const OwnedMount& owned) {
  const Instance& instance = owned.instance;
  const MountRecord& record = owned.mount.record;
  ASSIGN_OR_RETURN(std::vector<MountRecord> others, LiveMounts(instance));
  std::erase_if(others,
                [&](const MountRecord& other) { return other.mount_point == record.mount_point; });
  // The kernel ends reads of a file of ours with ENOTCONN, those of an image in it with EIO.
  if (others.empty() && record.kind == "file") (void)Shut(instance, record).ok();
  if (others.empty()) return EndInstance(instance);
  const Status shut = Shut(instance, record);
  if (!shut.ok()) {
    std::cerr << "holdfast: instance " << instance.name() << " does not serve (" << shut.message()
              << "), so its other mounts end too: " << ListOf(others) << "\n";
    return EndInstance(instance);
  }
  if (owned.mount.is_here) (void)Detach(owned.mount.entry);
  RemoveMountRecord(instance, record);
  ReleaseObject(instance, record, others);
  for (const MountRecord& other : others) {
    if (ShowsSameImage(other, record)) Reopen(instance, other);
  }
  return {};
}

}  // namespace cli
