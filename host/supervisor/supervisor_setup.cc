#include "host/supervisor/supervisor_setup.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>

#include "host/notify/notify_socket.h"
#include "host/supervisor/locked_memory.h"
#include "host/supervisor/supervise_fields.h"

namespace host {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

namespace {

constexpr size_t kServiceNameBytesMax = 64;
constexpr int kLockTries = 1000;
constexpr int kLockTryMs = 5;
constexpr char kOomScorePath[] = "/proc/self/oom_score_adj";
constexpr mode_t kNotifyDirectoryMode = 0711;
constexpr size_t kOwnFdsMax = 64;  // Sockets, epoll sets, files: what we open besides stores.
constexpr std::string_view kNameCharacters =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

}  // namespace

Status CheckSupervisorOptions(const SupervisorOptions& options) {
  auto invalid = [](const std::string& what) { return Status(EINVAL, what); };
  if (options.services.empty() || options.services.size() > kServicesMax) {
    return invalid("a supervisor has 1 to " + std::to_string(kServicesMax) + " services, not " +
                   std::to_string(options.services.size()));
  }
  size_t fds = 0;
  size_t store_max = 0;
  for (const ServiceSpec& spec : options.services) {
    if (spec.name.empty() || spec.name.size() > kServiceNameBytesMax ||
        spec.name.find_first_not_of(kNameCharacters) != std::string::npos) {
      return invalid("service name '" + spec.name + "': use letters, digits, '.', '_' and '-'");
    }
    auto same_name = [&](const ServiceSpec& other) { return other.name == spec.name; };
    if (std::count_if(options.services.begin(), options.services.end(), same_name) > 1) {
      return invalid("two services are named " + spec.name + "; give each its own name");
    }
    if (spec.argv.empty() || spec.log_path.empty() || spec.pid_path.empty()) {
      return invalid("service " + spec.name + " needs a program, a log file and a pid file");
    }
    if (spec.fd_store_max > kFdStoreMax) {
      return invalid("service " + spec.name + ": a store holds " + std::to_string(kFdStoreMax) +
                     " descriptors at most");
    }
    fds += spec.fd_store_max;
    store_max = std::max(store_max, spec.fd_store_max);
  }
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  size_t needed = store_max + fds + kFdsPerMessageMax + kOwnFdsMax;
  if (limit.rlim_cur < needed) {
    return Status(EMFILE, "the stores may need " + std::to_string(needed) + " descriptors but " +
                              std::to_string(limit.rlim_cur) +
                              " are allowed; raise the limit (ulimit -n)");
  }
  return Status();
}

namespace {

std::string HolderOf(int file) {
  char pid[16];
  const ssize_t size = pread(file, pid, sizeof(pid), 0);
  return size > 0 ? std::string(pid, static_cast<size_t>(size)) : "";
}

// Where another program was this process, the copies that it has ended may not be gone yet.
bool Lock(int file) {
  for (int tries = 0; flock(file, LOCK_EX | LOCK_NB) != 0; ++tries) {
    if (errno != EWOULDBLOCK || tries == kLockTries || HolderOf(file) != std::to_string(getpid())) {
      return false;
    }
    poll(nullptr, 0, kLockTryMs);
  }
  return true;
}

}  // namespace

// The lock is held by the open file, also by a child that has not exec'ed yet: a new supervisor
// can't look for orphans while one is still about to become one.
Result<UniqueFd> LockRunDir(const std::string& run_dir) {
  if (mkdir(run_dir.c_str(), 0700) != 0 && errno != EEXIST) {
    return Status::FromErrno(errno, "make the run directory " + run_dir);
  }
  const std::string path = run_dir + "/" + kRunDirLock;
  UniqueFd file(open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file.valid()) return Status::FromErrno(errno, "use the run directory: open " + path);
  fchmod(file.get(), 0600);  // An earlier version's: a user that may open it may lock it.
  if (!Lock(file.get())) {
    if (errno != EWOULDBLOCK) return Status::FromErrno(errno, "lock " + path);
    const std::string pid = HolderOf(file.get());
    return Status(EBUSY, "supervisor " + (pid.empty() ? "(of unknown pid)" : pid) +
                             " already runs on " + run_dir +
                             "; stop it or choose another run directory");
  }
  // A flock cannot be looked at without taking it.
  struct flock shown = {};
  shown.l_type = F_WRLCK;
  shown.l_whence = SEEK_SET;
  if (fcntl(file.get(), F_OFD_SETLK, &shown) != 0) return Status::FromErrno(errno, "lock " + path);
  if (!WriteLockHolder(file.get())) return Status::FromErrno(errno, "write " + path);
  return file;
}

Status MakeNotifyDirectory(const std::string& run_dir) {
  const std::string path = run_dir + "/" + kNotifyDirectory;
  if ((mkdir(path.c_str(), kNotifyDirectoryMode) == 0 || errno == EEXIST) &&
      chmod(path.c_str(), kNotifyDirectoryMode) == 0) {
    return Status();
  }
  return Status::FromErrno(errno, "make the directory " + path);
}

std::string NotifyPath(const std::string& run_dir, const std::string& service) {
  return run_dir + "/" + kNotifyDirectory + "/" + service;
}

bool WriteLockHolder(int file) {
  char pid[16];
  const int size = snprintf(pid, sizeof(pid), "%d", getpid());
  return ftruncate(file, 0) == 0 && pwrite(file, pid, static_cast<size_t>(size), 0) == size;
}

bool IsStandardError(const std::string& path) {
  struct stat file;
  struct stat output;
  const int flags = fcntl(STDERR_FILENO, F_GETFL);
  return flags >= 0 && (flags & O_APPEND) != 0 && !path.empty() && stat(path.c_str(), &file) == 0 &&
         fstat(STDERR_FILENO, &output) == 0 && file.st_dev == output.st_dev &&
         file.st_ino == output.st_ino;
}

Result<UniqueFd> BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (int number : {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR2}) sigaddset(&signals, number);
  UniqueFd file(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!file.valid()) return Status::FromErrno(errno, "create a signalfd");
  sigaddset(&signals, SIGPIPE);  // Our stderr may be a pipe without a reader.
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGCHLD, SIG_DFL);  // Ignored, it would hide the exits.
  return file;
}

std::string ReadOomScore() {
  const UniqueFd file(open(kOomScorePath, O_RDONLY | O_CLOEXEC));
  char text[16];
  const ssize_t size = read(file.get(), text, sizeof(text));
  return size > 0 ? std::string(text, static_cast<size_t>(size)) : "";
}

void RestoreOomScore(const std::string& score) {
  const UniqueFd file(open(kOomScorePath, O_WRONLY | O_CLOEXEC));
  [[maybe_unused]] ssize_t written = write(file.get(), score.data(), score.size());
}

// Best effort throughout: a container may forbid each, and a supervisor is of use without.
void HardenProcess() {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  RestoreOomScore("-999");
  // Not what comes later: under a memory limit it would make the kernel refuse the stack's growth.
  LockOwnMemory();
}

}  // namespace host
