#include "host/service/forced_umount.h"

#include <poll.h>
#include <sys/file.h>
#include <unistd.h>

extern "C" {  // glibc 2.36's header forgets to say so itself.
#include <sys/pidfd.h>
}

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <iostream>
#include <set>
#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/protocol/control_messages.h"
#include "cachecore/system/process.h"
#include "host/instance/control_client.h"
#include "host/instance/instance_processes.h"
#include "host/instance/settings.h"
#include "host/instance/supervisor_process.h"
#include "host/instance/systemd_unit.h"
#include "host/mounts/detached_mounts.h"
#include "host/mounts/fuse_release.h"
#include "host/mounts/layer_mounts.h"
#include "host/mounts/object_lease.h"
#include "host/mounts/own_mounts.h"
#include "host/service/instance_control.h"
#include "host/supervisor/supervise_fields.h"
#include "host/supervisor/supervisor_setup.h"

namespace host {
namespace {

namespace control = cachecore::control;
using cachecore::Deadline;
using cachecore::PinnedProcess;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
using cachecore::WaitUntil;
using std::chrono::milliseconds;

// Together with the wait for the instance's lock they stay below kForceTimeout.
constexpr milliseconds kShutTimeout{600};
constexpr milliseconds kShutMoment{100};
constexpr milliseconds kSupervisorTimeout{700};
constexpr milliseconds kTermTimeout{1200};
constexpr milliseconds kKillTimeout{700};

std::string ListOf(std::vector<MountRecord> mounts) {
  HideLayers(&mounts);
  std::string list;
  for (const MountRecord& mount : mounts) list += (list.empty() ? "" : ", ") + mount.mount_point;
  return list;
}

bool ShowsSameImage(const MountRecord& a, const MountRecord& b) {
  return a.volume == b.volume && a.object == b.object;
}

// Has the daemon end the reads of these images, and refuse those that would have to wait.
Status Shut(const Instance& instance, const std::vector<MountRecord>& images) {
  const Deadline deadline(kShutTimeout);
  for (const MountRecord& image : images) {
    RETURN_IF_ERROR(CallControl(instance.ControlSocket(),
                                control::EncodeRequest({.operation = control::Operation::kShut,
                                                        .volume = image.volume,
                                                        .object = image.object}),
                                deadline)
                        .status());
  }
  return {};
}

// The kernel tries a page whose read-ahead has failed a second time.
void AwaitSecondTries() { poll(nullptr, 0, static_cast<int>(kShutMoment.count())); }

// Lets the image's other mounts go on.
void Reopen(const Instance& instance, const MountRecord& other, const std::string& shown_at) {
  AwaitSecondTries();
  const Status acquired =
      CallControl(instance.ControlSocket(),
                  control::EncodeRequest({.operation = control::Operation::kAcquire,
                                          .volume = other.volume,
                                          .object = other.object,
                                          .timeout_ms = kShutTimeout.count()}),
                  Deadline(kShutTimeout))
          .status();
  std::cerr << "holdfast: " << shown_at << " shows the same image: reads that waited "
            << "there have failed too"
            << (acquired.ok() ? "" : ", and fail until it is mounted again: " + acquired.message())
            << "\n";
}

// A process of the instance that was signalled to end.
struct Ending {
  std::string program;
  UniqueFd pidfd;
};

bool WaitGone(const Ending& process, const Deadline& deadline) {
  pollfd entry = {process.pidfd.get(), POLLIN, 0};
  return poll(&entry, 1, static_cast<int>(deadline.Remaining().count())) > 0;
}

// Those with a pid file, and those without, such as a spare that is stopped: it does not see the end
// of its supervisor.
std::vector<Ending> ProcessesOf(const Instance& instance) {
  std::vector<Ending> processes;
  std::set<pid_t> pids;
  for (const char* service : {kMetricsService, kFetcher, kDaemon}) {
    PinnedProcess process = PinService(instance, service);
    if (process.pid == 0) continue;
    pids.insert(process.pid);
    processes.push_back({service, std::move(process.pidfd)});
  }
  for (InstanceProcess& process : FindInstanceProcesses(instance)) {
    if (!pids.contains(process.pid)) {
      processes.push_back({process.program, std::move(process.pidfd)});
    }
  }
  return processes;
}

// SIGTERM lets a daemon write down what it has; one that hangs is killed.
Status EndProcesses(const Instance& instance) {
  std::vector<Ending> processes = ProcessesOf(instance);
  for (const Ending& process : processes) {
    pidfd_send_signal(process.pidfd.get(), SIGTERM, nullptr, 0);
    // Stopped, it would not hear the other.
    pidfd_send_signal(process.pidfd.get(), SIGCONT, nullptr, 0);
  }
  const Deadline term_deadline(kTermTimeout);
  std::erase_if(processes, [&](const Ending& process) { return WaitGone(process, term_deadline); });
  for (const Ending& process : processes) {
    std::cerr << "holdfast: " << process.program << " of instance " << instance.name()
              << " does not end on SIGTERM, and is killed\n";
    pidfd_send_signal(process.pidfd.get(), SIGKILL, nullptr, 0);
  }
  const Deadline kill_deadline(kKillTimeout);
  std::erase_if(processes, [&](const Ending& process) { return WaitGone(process, kill_deadline); });
  if (processes.empty()) return {};
  return Status(EBUSY, processes.front().program + " of instance " + instance.name() +
                           " does not end even on SIGKILL; its mounts are gone");
}

// Kills the supervisor and waits until no child of its is about to become a daemon: the lock is
// such a child's too.  Held while the result is open, it keeps new supervisors away.  Best effort.
UniqueFd EndSupervisor(const Instance& instance) {
  const Status ended = KillSupervisor(instance, kSupervisorTimeout);
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

// Whether another supervisor, systemd for example, runs the daemons.  The lock file outlives its
// supervisor.
bool IsForeign(const Instance& instance) {
  if (access((instance.RunDir() + "/" + kRunDirLock).c_str(), F_OK) != 0) return true;
  return SupervisorPid(instance) == 0 && SystemdRuns(instance);
}

void SayWhoRunsIt(const Instance& instance) {
  std::cerr << "holdfast: instance " << instance.name()
            << " is not supervised by holdfast; its daemons were left to their service manager "
               "(for systemd: systemctl stop "
            << DaemonUnit(instance) << ")\n";
}

// The supervisor first: it would start again what is ended.
Status EndInstance(const Instance& instance) {
  if (IsForeign(instance)) {
    DetachMounts(instance);
    SayWhoRunsIt(instance);
    return {};
  }
  const UniqueFd lock = EndSupervisor(instance);
  DetachMounts(instance);
  RETURN_IF_ERROR(EndProcesses(instance));
  ClearRunDirectory(instance);
  return {};
}

// Other mounts of the same images, and users of detached ones, go on.
void ReopenForOthers(const OwnedMount& owned, const std::vector<MountRecord>& images,
                     const std::vector<MountRecord>& live,
                     const std::vector<MountRecord>& detached) {
  std::vector<MountRecord> others = live;
  for (const MountRecord& record : detached) {
    const auto is_it = [&record](const MountRecord& one) {
      return one.mount_id == record.mount_id;
    };
    if (std::any_of(live.begin(), live.end(), is_it)) continue;
    const auto is_same = [&record](const MountRecord& image) {
      return ShowsSameImage(record, image);
    };
    if (std::any_of(images.begin(), images.end(), is_same) &&
        !DescribeUsersOfDetached(owned.instance, record).empty()) {
      others.push_back(record);
    }
  }
  for (const MountRecord& image : images) {
    ReleaseObject(owned.instance, image, others);
    for (const MountRecord& other : others) {
      if (!ShowsSameImage(other, image)) continue;
      Reopen(owned.instance, other, ShownAt(other, live).front());
    }
  }
}

// Takes away the last mount, whose reads have ended.  The instance ends with it, unless users of
// what was detached earlier need that.
Status EndLast(const OwnedMount& owned, const std::vector<MountRecord>& images) {
  const Instance& instance = owned.instance;
  const OwnMount& mount = owned.mount;
  const bool is_shared = !DescribeOtherUsers(instance, mount).empty();
  if (mount.is_here) (void)Detach(mount.entry);
  RemoveMountRecord(instance, mount.record);
  ReleaseUnusedLayers(instance);
  const std::vector<MountRecord> detached = ListDetached(instance, mount.record.fuse_device);
  if (IsForeign(instance)) {
    ReopenForOthers(owned, images, {}, detached);
    SayWhoRunsIt(instance);
    return {};
  }
  if (ReleaseFuse(instance).error() != EBUSY) return EndInstance(instance);
  const std::string others = DescribeUsers(instance, &mount);
  // Users that can't be seen may be those of other mounts.
  const bool is_seen = is_shared || !DescribeHolders({mount.entry.device}).empty();
  if (others.empty() && is_seen) return EndInstance(instance);
  ReopenForOthers(owned, images, {}, detached);
  std::cerr << "holdfast: " << mount.record.mount_point << " is detached; instance "
            << instance.name() << " goes on, since it is still in use: "
            << (others.empty() ? "by what can't be seen from here" : others) << " (holdfast stop"
            << instance.Flags() << " ends it after its last user)\n";
  return {};
}

}  // namespace

Status ForceUmount(const OwnedMount& owned) {
  const Instance& instance = owned.instance;
  const MountRecord& record = owned.mount.record;
  ASSIGN_OR_RETURN(std::vector<MountRecord> others, LiveMounts(instance));
  std::erase_if(others,
                [&](const MountRecord& other) { return other.mount_point == record.mount_point; });
  // Those of this mount, and what a killed command has left.
  HideUnusedLayers(instance, &others);
  const std::vector<MountRecord> images = ImagesOf(instance, record);
  const Status shut = Shut(instance, images);
  // An instance that serves, or may serve, a client of its device does not end with its mounts.
  const Result<bool> has_device = shut.ok() ? HasCachefilesDevice(instance) : Result<bool>(false);
  if (others.empty() && has_device.ok() && !*has_device) {
    if (!shut.ok()) {
      std::cerr << "holdfast: instance " << instance.name() << " does not serve (" << shut.message()
                << "); its supervisor and its daemons are ended\n";
      return EndInstance(instance);
    }
    // The kernel ends reads of a FUSE file with ENOTCONN, those of an image in it with EIO.  The
    // daemon ends them with EIO, also where the kernel tries a page of a failed read-ahead again.
    if (record.kind == "file") AwaitSecondTries();
    return EndLast(owned, images);
  }
  if (!shut.ok()) {
    std::cerr << "holdfast: instance " << instance.name() << " does not serve (" << shut.message()
              << "), so its supervisor and its daemons are ended, and its other mounts end too: "
              << ListOf(others) << "\n";
    return EndInstance(instance);
  }
  if (!has_device.ok()) {
    std::cerr << "holdfast: " << record.mount_point << " is unmounted; instance " << instance.name()
              << " goes on (holdfast stop" << instance.Flags()
              << " ends it): " << has_device.status().message() << "\n";
  }
  if (owned.mount.is_here) (void)Detach(owned.mount.entry);
  RemoveMountRecord(instance, record);
  ReleaseUnusedLayers(instance);
  ASSIGN_OR_RETURN(const std::vector<MountRecord> left, LiveMounts(instance));
  ReopenForOthers(owned, images, left, ListDetached(instance, record.fuse_device));
  return {};
}

Status EndReadsOfDetached(const Instance& instance, const std::vector<MountRecord>& images) {
  RETURN_IF_ERROR(Shut(instance, images));
  ASSIGN_OR_RETURN(const std::vector<MountRecord> live, LiveMounts(instance));
  for (const MountRecord& other : live) {
    const auto is_same = [&other](const MountRecord& image) {
      return ShowsSameImage(other, image);
    };
    if (std::none_of(images.begin(), images.end(), is_same)) continue;
    Reopen(instance, other, ShownAt(other, live).front());
  }
  return {};
}

}  // namespace host
