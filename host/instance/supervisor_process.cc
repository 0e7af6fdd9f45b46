#include "host/instance/supervisor_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

extern "C" {  // glibc 2.36's header lacks it.
#include <sys/pidfd.h>
}

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <utility>

#include "cachecore/base/deadline.h"
#include "host/supervisor/supervise_fields.h"

namespace host {
namespace {

using cachecore::EndProcess;
using cachecore::PinnedProcess;
using cachecore::PinProcess;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

// From the death of a supervisor until its standby has its lock.
constexpr std::chrono::seconds kTakeOverTime{1};
// One that is stopped for longer is not about to go on, or to end.
constexpr std::chrono::milliseconds kStoppedTime{200};
constexpr off_t kSupervisorByte = 0;
constexpr off_t kStandbyByte = 1;

struct flock LockOf(off_t byte, short type = F_WRLCK) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return lock;
}

void WaitForLock(int file, off_t byte) {
  struct flock lock = LockOf(byte);
  while (fcntl(file, F_SETLKW, &lock) != 0 && errno == EINTR) {
  }
}

// The process that holds that byte, or 0.
pid_t HolderOf(const Instance& instance, off_t byte) {
  const UniqueFd fd(open(instance.PidFile(kSupervisor).c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return 0;
  struct flock lock = LockOf(byte);
  if (fcntl(fd.get(), F_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) return 0;
  return lock.l_pid;
}

void Send(const PinnedProcess& process, int signal) {
  if (process.pid != 0) pidfd_send_signal(process.pidfd.get(), signal, nullptr, 0);
}

// The supervisor is dead, and a standby has the lock of the run directory, or a child that is about to
// become a service.
bool IsBeingTakenOver(const Instance& instance) {
  const UniqueFd fd(open((instance.RunDir() + "/" + kRunDirLock).c_str(), O_RDONLY | O_CLOEXEC));
  struct flock lock = LockOf(0);
  if (!fd.valid() || fcntl(fd.get(), F_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) return false;
  char text[16] = {};
  if (pread(fd.get(), text, sizeof(text) - 1, 0) <= 0) return false;
  const PinnedProcess named = PinProcess(std::atoi(text));
  pollfd entry = {named.pidfd.get(), POLLIN, 0};
  return named.pid == 0 || poll(&entry, 1, 0) > 0;
}

struct StatLine {
  char state = 0;  // 0: there is no such process.
  pid_t tracer = 0;
};

StatLine LookAtProcess(pid_t pid) {
  StatLine line;
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  for (std::string word; file >> word;) {
    if (word == "State:") file >> line.state;
    if (word == "TracerPid:") file >> line.tracer;
  }
  return line;
}

// T: by a signal; t: by a debugger, also for a moment at each call that it looks at.
bool IsStopped(pid_t pid) {
  const char state = LookAtProcess(pid).state;
  return state == 'T' || state == 't';
}

bool WritePid(int file) { return ftruncate(file, 0) == 0 && dprintf(file, "%d\n", getpid()) > 0; }

}  // namespace

Result<SupervisorPidFile> SupervisorPidFile::Hold(const Instance& instance) {
  const std::string path = instance.PidFile(kSupervisor);
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd.valid()) return Status::FromErrno(errno, path);
  fchmod(fd.get(), 0600);  // An earlier version's: a user that may open it may lock it.
  struct flock lock = LockOf(kSupervisorByte);
  if (fcntl(fd.get(), F_SETLK, &lock) != 0) {
    return Status(EBUSY, "instance " + instance.name() + " is already supervised by process " +
                             std::to_string(SupervisorPid(instance)));
  }
  if (!WritePid(fd.get())) return Status::FromErrno(errno, "write " + path);
  return SupervisorPidFile(std::move(fd));
}

void SupervisorPidFile::HoldAsStandby() const { WaitForLock(file_.get(), kStandbyByte); }

void SupervisorPidFile::TakeOver() const {
  WaitForLock(file_.get(), kSupervisorByte);
  (void)lseek(file_.get(), 0, SEEK_SET);
  (void)WritePid(file_.get());  // For people: the lock names the holder.
  struct flock unlock = LockOf(kStandbyByte, F_UNLCK);
  fcntl(file_.get(), F_SETLK, &unlock);
}

pid_t SupervisorPid(const Instance& instance) {
  pid_t holder = 0;
  const auto is_known = [&] {
    for (const off_t byte : {kSupervisorByte, kStandbyByte}) {
      if (holder == 0) holder = HolderOf(instance, byte);
    }
    return holder != 0 || !IsBeingTakenOver(instance);
  };
  if (!cachecore::WaitUntil(is_known, cachecore::Deadline(kTakeOverTime)).ok()) return 0;
  // What has taken over between the looks has this lock.
  return holder != 0 ? holder : HolderOf(instance, kSupervisorByte);
}

PinnedProcess PinSupervisor(const Instance& instance) {
  const pid_t pid = SupervisorPid(instance);
  PinnedProcess supervisor = PinProcess(pid);
  // The order matters: the pid is pinned first, then looked at.
  return SupervisorPid(instance) == pid ? std::move(supervisor) : PinnedProcess();
}

Status CheckSupervisorRuns(const Instance& instance) {
  for (const off_t byte : {kSupervisorByte, kStandbyByte}) {
    const pid_t pid = HolderOf(instance, byte);
    if (pid == 0) continue;
    const auto runs = [pid] { return !IsStopped(pid); };
    if (cachecore::WaitUntil(runs, cachecore::Deadline(kStoppedTime)).ok()) continue;
    const StatLine line = LookAtProcess(pid);
    const bool is_supervisor = byte == kSupervisorByte;
    return Status(
        EBUSY, std::string("its ") + (is_supervisor ? "supervisor" : "standby") + " (process " +
                   std::to_string(pid) + ") is stopped, and would " +
                   (is_supervisor ? "restart nothing" : "not take over") + "; let it go on: " +
                   (line.state == 't' ? "end the debugger, process " + std::to_string(line.tracer)
                                      : "kill -CONT " + std::to_string(pid)));
  }
  return {};
}

Status TerminateSupervisor(const Instance& instance, std::chrono::milliseconds timeout) {
  const cachecore::Deadline deadline(timeout);
  while (SupervisorPid(instance) != 0) {
    const PinnedProcess supervisor = PinSupervisor(instance);
    Send(supervisor, SIGTERM);
    Send(supervisor, SIGCONT);  // Stopped, it would not hear the other.
    RETURN_IF_ERROR(EndProcess(supervisor, SIGTERM, deadline.Remaining()));
    if (deadline.Expired()) return Status(ETIMEDOUT, "the supervisor does not end");
  }
  return {};
}

// A stopped supervisor makes no other standby.
Status KillSupervisor(const Instance& instance, std::chrono::milliseconds timeout) {
  const cachecore::Deadline deadline(timeout);
  while (SupervisorPid(instance) != 0) {
    const PinnedProcess supervisor = PinProcess(HolderOf(instance, kSupervisorByte));
    Send(supervisor, SIGSTOP);
    const PinnedProcess standby = PinProcess(HolderOf(instance, kStandbyByte));
    Send(standby, SIGKILL);
    Send(supervisor, SIGKILL);  // Before any of them is waited for.
    RETURN_IF_ERROR(EndProcess(standby, SIGKILL, deadline.Remaining()));
    RETURN_IF_ERROR(EndProcess(supervisor, SIGKILL, deadline.Remaining()));
    if (deadline.Expired()) return Status(ETIMEDOUT, "the supervisor does not end");
  }
  return {};
}

}  // namespace host
