#include "host/mounts/fuse_release.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

extern "C" {  // glibc 2.36's header forgets to say so itself.
#include <sys/pidfd.h>
}

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/system/bounded_call.h"
#include "cachecore/system/files.h"
#include "host/instance/instance_processes.h"
#include "host/mounts/own_mounts.h"

namespace host {
namespace {

using cachecore::CallInChild;
using cachecore::Deadline;
using cachecore::ListDirectory;
using cachecore::MountEntry;
using cachecore::ReadMountTable;
using cachecore::Result;
using cachecore::Status;
using cachecore::StopSignalsIgnored;
using cachecore::UniqueFd;
using cachecore::WaitUntil;
using std::chrono::milliseconds;

constexpr milliseconds kKernelReleaseTimeout{10000};
// A daemon that is there answers at once; one that is being restarted may not.
constexpr milliseconds kAskTimeout{1000};
// The kernel releases loop devices and exiting processes by itself, a moment after an umount.
constexpr milliseconds kKernelReleaseTime{500};

bool HasEnded(int fuse) {
  pollfd probe = {fuse, POLLIN, 0};
  return poll(&probe, 1, 0) >= 0 && (probe.revents & POLLERR) != 0;
}

// The living FUSE connections of the instance's processes, and a process that is where they are.
struct Holders {
  std::vector<UniqueFd> connections;
  UniqueFd names;  // Its mount namespace, when that is not ours.
};

bool IsFuseDevice(const std::string& path) {
  char target[PATH_MAX];
  const ssize_t length = readlink(path.c_str(), target, sizeof target);
  return length > 0 && std::string(target, static_cast<size_t>(length)) == "/dev/fuse";
}

bool IsOurNamespace(int names) {
  struct stat theirs, ours;
  return fstat(names, &theirs) == 0 && stat("/proc/self/ns/mnt", &ours) == 0 &&
         theirs.st_ino == ours.st_ino;
}

Holders FindHolders(const Instance& instance) {
  Holders holders;
  for (const InstanceProcess& process : FindInstanceProcesses(instance)) {
    const std::string directory = "/proc/" + std::to_string(process.pid);
    for (const std::string& name : ListDirectory(directory + "/fd")) {
      if (!IsFuseDevice(directory + "/fd/" + name)) continue;
      UniqueFd fd(pidfd_getfd(process.pidfd.get(), std::atoi(name.c_str()), 0));
      if (!fd.valid() || HasEnded(fd.get())) continue;
      holders.connections.push_back(std::move(fd));
      UniqueFd names(open((directory + "/ns/mnt").c_str(), O_RDONLY | O_CLOEXEC));
      if (names.valid() && !IsOurNamespace(names.get())) holders.names = std::move(names);
    }
  }
  return holders;
}

// As fusefs/server/fuse_mount.cc mounts it.
Status MountAgain(const Instance& instance, const Holders& holders) {
  Status status(ENOTCONN, "no living FUSE connection");
  for (const UniqueFd& fd : holders.connections) {
    const std::string options =
        "fd=" + std::to_string(fd.get()) +
        ",rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions";
    if (mount("holdfast", instance.FuseDir().c_str(), "fuse.holdfast",
              MS_RDONLY | MS_NODEV | MS_NOSUID | MS_NOATIME, options.c_str()) == 0) {
      return {};
    }
    status = Status::FromErrno(errno, "mount " + instance.FuseDir() + " again");
  }
  return status;
}

Result<bool> HasTree(const Instance& instance) {
  ASSIGN_OR_RETURN(const std::vector<MountEntry> table, ReadMountTable());
  return !FuseDevice(instance, table).empty();
}

// Whether one of them is the tree's, and has ended with it.
bool OneHasEnded(const Holders& holders) {
  return std::any_of(holders.connections.begin(), holders.connections.end(),
                     [](const UniqueFd& fd) { return HasEnded(fd.get()); });
}

Status Release(const Instance& instance, const Holders& holders) {
  const Deadline letting_go(kKernelReleaseTime);
  for (;;) {
    ASSIGN_OR_RETURN(const bool has_tree, HasTree(instance));
    if (!has_tree || umount2(instance.FuseDir().c_str(), UMOUNT_NOFOLLOW) == 0) break;
    if (errno != EBUSY) return Status::FromErrno(errno, "unmount " + instance.FuseDir());
    if (letting_go.Expired()) return Status(EBUSY, "");
    poll(nullptr, 0, 5);
  }
  WaitUntil([&holders] { return OneHasEnded(holders); }, Deadline(kKernelReleaseTime))
      .IgnoreError("whether one has ended is asked next");
  if (OneHasEnded(holders)) return {};
  RETURN_IF_ERROR(MountAgain(instance, holders));
  return Status(EBUSY, "");
}

// In the mount namespace that the instance is in.
Status CallThere(const Holders& holders, const std::function<Status()>& call) {
  const auto enter_and_call = [&]() -> Result<std::string> {
    if (holders.names.valid() && setns(holders.names.get(), CLONE_NEWNS) != 0) {
      return Status::FromErrno(errno, "enter the instance's mount namespace");
    }
    RETURN_IF_ERROR(call());
    return std::string();
  };
  std::vector<int> used = {holders.names.get()};
  for (const UniqueFd& fd : holders.connections) used.push_back(fd.get());
  return CallInChild(enter_and_call, Deadline(kKernelReleaseTimeout), std::move(used)).status();
}

}  // namespace

Status ReleaseFuse(const Instance& instance) {
  const Holders holders = FindHolders(instance);
  if (holders.connections.empty()) return {};
  const StopSignalsIgnored until_done;
  const Status status = CallThere(holders, [&] { return Release(instance, holders); });
  if (status.error() != EBUSY) return status;
  const std::string users = DescribeUsers(instance);
  return Status(EBUSY, "file systems of instance " + instance.name() + " are in use: " +
                           (users.empty() ? "by what can't be seen from here" : users));
}

bool IsConnectionDead(const Instance& instance) {
  const Result<bool> has_tree = HasTree(instance);
  if (has_tree.ok() && !*has_tree) {
    // Without processes that can be seen nothing can be told.
    return !FindInstanceProcesses(instance).empty() && FindHolders(instance).connections.empty();
  }
  return HasLostServer(instance.FuseDir());
}

bool HasLostServer(const std::string& path) {
  const auto ask = [&path]() -> Result<std::string> {
    struct statx info;
    if (statx(AT_FDCWD, path.c_str(), AT_STATX_FORCE_SYNC, STATX_MODE, &info) != 0) {
      return Status::FromErrno(errno, path);
    }
    return std::string();
  };
  const int error = CallInChild(ask, Deadline(kAskTimeout)).status().error();
  return error == ENOTCONN || error == ECONNABORTED;
}

Status RestoreFuse(const Instance& instance) {
  ASSIGN_OR_RETURN(const bool has_tree, HasTree(instance));
  if (has_tree) return {};
  const Holders holders = FindHolders(instance);
  if (holders.connections.empty()) return {};
  return CallThere(holders, [&]() -> Status {
    ASSIGN_OR_RETURN(const bool has_it, HasTree(instance));
    return has_it ? Status() : MountAgain(instance, holders);
  });
}

}  // namespace host
