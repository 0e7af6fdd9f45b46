#include "host/supervisor/child_process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string_view>
#include <system_error>
#include <utility>

#include "cachecore/base/unique_fd.h"
#include "cachecore/environment/service_environment.h"
#include "cachecore/system/pid_stamp.h"

namespace host {
namespace {

using cachecore::kPidStampBytesMax;
using cachecore::PutPidStamp;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

constexpr int kFirstPassedFd = 3;
constexpr int kExitCannotExec = 127;
constexpr std::string_view kListenNamesPrefix = "LISTEN_FDNAMES=";
constexpr size_t kListenEntries = 3;
constexpr const char* kOomScoreAdjPath = "/proc/self/oom_score_adj";

// What the supervisor sets itself, and what its own service manager has set for it.
constexpr std::string_view kOwnVariables[] = {"NOTIFY_SOCKET=",  "LISTEN_PID=",    "LISTEN_FDS=",
                                              "LISTEN_FDNAMES=", "WATCHDOG_USEC=", "WATCHDOG_PID="};

std::string ReadWholeFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

Status CheckRunnable(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    return Status(EISDIR, path + " is a directory, not a program");
  }
  if (access(path.c_str(), X_OK) != 0) return Status::FromErrno(errno, "run " + path);
  return Status();
}

// Looked up once: a service must not turn into another program because PATH's folders changed.
Result<std::string> ResolveProgram(const std::string& name) {
  if (name.find('/') != std::string::npos) {
    RETURN_IF_ERROR(CheckRunnable(name));
    return name;
  }
  const char* path = getenv("PATH");
  std::string_view rest = path != nullptr ? path : "/usr/bin:/bin";
  while (!rest.empty()) {
    size_t end = std::min(rest.find(':'), rest.size());
    std::string candidate = std::string(rest.substr(0, end)) + "/" + name;
    if (CheckRunnable(candidate).ok()) return candidate;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return Status(ENOENT, "no program " + name + " in PATH; install it or give its whole path");
}

void OpenOnto(int target, const char* path, int flags) {
  int fd = open(path, flags | O_CLOEXEC, 0644);
  if (fd < 0) return;
  if (fd == target) {
    fcntl(fd, F_SETFD, 0);
  } else {
    dup2(fd, target);
    close(fd);
  }
}

// False when it could not be written as a whole.
bool WriteText(const char* path, int flags, const char* text, size_t size, bool cut = false) {
  int fd = open(path, O_WRONLY | O_CLOEXEC | flags, 0600);
  if (fd < 0) return false;
  bool done = write(fd, text, size) == static_cast<ssize_t>(size);
  if (done && cut) done = ftruncate(fd, static_cast<off_t>(size)) == 0;
  close(fd);
  return done;
}

// In the room that the file has.
bool OverwriteText(const char* path, int flags, const char* text, size_t size) {
  return WriteText(path, flags, text, size, /*cut=*/true);
}

// "prefix" and a number; snprintf isn't promised to be async-signal-safe.  Returns the length.
size_t PutNumber(char* out, size_t room, std::string_view prefix, long number) {
  char* digits = std::copy(prefix.begin(), prefix.end(), out);
  char* end = std::to_chars(digits, out + room - 1, number).ptr;
  *end = '\0';
  return static_cast<size_t>(end - out);
}

}  // namespace

Result<std::unique_ptr<ChildLauncher>> ChildLauncher::Create(const LaunchSpec& spec) {
  auto launcher = std::unique_ptr<ChildLauncher>(new ChildLauncher);
  launcher->spec_ = spec;
  ASSIGN_OR_RETURN(launcher->program_, ResolveProgram(spec.argv[0]));
  void* shared =
      mmap(nullptr, sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return Status::FromErrno(errno, "map a page shared with a child");
  launcher->exec_error_.reset(static_cast<int*>(shared));
  launcher->pid_path_tmp_ = spec.pid_path + ".tmp";
  launcher->oom_score_adj_ = ReadWholeFile(kOomScoreAdjPath);
  for (std::string& argument : launcher->spec_.argv) launcher->argv_.push_back(argument.data());
  launcher->argv_.push_back(nullptr);
  launcher->LayOutEnvironment();
  return launcher;
}

void ChildLauncher::LayOutEnvironment() {
  env_strings_.push_back("NOTIFY_SOCKET=" + spec_.notify_socket);
  if (spec_.watchdog.count() > 0) {
    env_strings_.push_back("WATCHDOG_USEC=" + std::to_string(spec_.watchdog.count()));
  }
  for (char** variable = environ; *variable != nullptr; ++variable) {
    bool own = std::any_of(
        std::begin(kOwnVariables), std::end(kOwnVariables),
        [&](std::string_view prefix) { return std::string_view(*variable).starts_with(prefix); });
    if (!own && cachecore::ServiceMayHave(*variable, spec_.brings))
      env_strings_.push_back(*variable);
  }
  for (std::string& text : env_strings_) env_.push_back(text.data());
  if (spec_.watchdog.count() > 0) env_.push_back(watchdog_pid_);
  env_fixed_ = env_.size();
  env_.resize(env_fixed_ + kListenEntries + 1, nullptr);
  listen_names_.resize(kListenNamesPrefix.size() + spec_.fds_max * (kFdNameBytesMax + 1) + 1);
}

void ChildLauncher::FillEnvironment(const StoredDescriptors& store) {
  std::fill(env_.begin() + static_cast<ptrdiff_t>(env_fixed_), env_.end(), nullptr);
  if (store.size() == 0) return;
  char* out = std::copy(kListenNamesPrefix.begin(), kListenNamesPrefix.end(), listen_names_.data());
  for (size_t i = 0; i < store.size(); ++i) {
    if (i > 0) *out++ = ':';
    std::string_view name = store.name(i);
    out = std::copy(name.begin(), name.end(), out);
  }
  *out = '\0';
  snprintf(listen_fds_, sizeof(listen_fds_), "LISTEN_FDS=%zu", store.size());
  env_[env_fixed_] = listen_pid_;
  env_[env_fixed_ + 1] = listen_fds_;
  env_[env_fixed_ + 2] = listen_names_.data();
}

pid_t ChildLauncher::Start(const StoredDescriptors& store) {
  FillEnvironment(store);
  *exec_error_ = 0;
  // vfork copies no page tables: it can't fail for want of memory and takes no time to speak of.
  // Signals are blocked by the caller, so no handler runs on the memory we share.
  pid_t pid = vfork();
  if (pid == 0) RunChild(store);
  return pid > 0 ? pid : -errno;
}

// Between vfork and exec: async-signal-safe calls only, and no allocation.
void ChildLauncher::RunChild(const StoredDescriptors& store) {
  WritePidFile(getpid());
  PutNumber(listen_pid_, sizeof(listen_pid_), "LISTEN_PID=", getpid());
  PutNumber(watchdog_pid_, sizeof(watchdog_pid_), "WATCHDOG_PID=", getpid());
  if (!oom_score_adj_.empty()) {
    WriteText(kOomScoreAdjPath, 0, oom_score_adj_.data(), oom_score_adj_.size());
  }
  OpenOnto(STDIN_FILENO, "/dev/null", O_RDONLY);
  OpenOnto(STDOUT_FILENO, spec_.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND);
  dup2(STDOUT_FILENO, STDERR_FILENO);

  // Whatever was inherited open from our own caller isn't the service's business.
  syscall(SYS_close_range, kFirstPassedFd, ~0U, 1U << 2 /* CLOSE_RANGE_CLOEXEC */);
  for (size_t i = 0; i < store.size(); ++i) {
    if (dup2(store.fd(i), kFirstPassedFd + static_cast<int>(i)) < 0) {
      *exec_error_ = errno;
      _exit(kExitCannotExec);
    }
  }

  signal(SIGPIPE, SIG_DFL);
  signal(SIGHUP, SIG_IGN);  // Until it has said what to do with it.
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  execve(program_.c_str(), argv_.data(), env_.data());
  *exec_error_ = errno;
  _exit(kExitCannotExec);
}

void ChildLauncher::WritePidFile(pid_t pid) const {
  if (spec_.pid_path.empty()) return;
  char text[kPidStampBytesMax + 1];
  size_t size = PutPidStamp(pid, ' ', text);
  text[size++] = '\n';
  // What RetirePidFile has left is written over: a full disk does not refuse that.
  if (OverwriteText(pid_path_tmp_.c_str(), O_CREAT, text, size)) {
    rename(pid_path_tmp_.c_str(), spec_.pid_path.c_str());
  } else {
    OverwriteText(spec_.pid_path.c_str(), 0, text, size);
  }
}

void ChildLauncher::RetirePidFile(bool keep_room) const {
  if (keep_room) {
    rename(spec_.pid_path.c_str(), pid_path_tmp_.c_str());
    return;
  }
  unlink(spec_.pid_path.c_str());
  unlink(pid_path_tmp_.c_str());
}

}  // namespace host
