#include "host/instance/instance_processes.h"

#include <dirent.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

extern "C" {  // glibc 2.36's header forgets to say so itself.
#include <sys/pidfd.h>
}

#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <set>
#include <sstream>
#include <thread>

#include "cachecore/base/deadline.h"
#include "cachecore/system/files.h"

namespace host {
namespace {

using cachecore::Deadline;
using cachecore::ListDirectory;
using cachecore::ReadFile;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
using std::chrono::milliseconds;

constexpr milliseconds kProcessTermTimeout{30000};  // A supervisor ends its daemons, which sync.
constexpr milliseconds kProcessKillTimeout{2000};
constexpr milliseconds kExecTimeout{1000};

constexpr char kSupervisorProgram[] = "holdfast";

std::string LinkText(const std::string& path) {
  char target[PATH_MAX];
  const ssize_t length = readlink(path.c_str(), target, sizeof target);
  return length > 0 ? std::string(target, static_cast<size_t>(length)) : "";
}

// The name of the program that a process runs, also one whose file was replaced.
std::string ProgramOf(const std::string& process) {
  std::string path = LinkText(process + "/exe");
  constexpr char kDeleted[] = " (deleted)";
  if (path.ends_with(kDeleted)) path.resize(path.size() - sizeof kDeleted + 1);
  return path.substr(path.rfind('/') + 1);
}

// "socket:[INODE]" of the sockets that were bound below the run directory, were the files gone.
std::set<std::string> SocketsOf(const Instance& instance) {
  std::set<std::string> sockets;
  const Result<std::string> text = ReadFile("/proc/net/unix");
  if (!text.ok()) return sockets;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    std::string number, count, protocol, flags, type, state, inode, path;
    fields >> number >> count >> protocol >> flags >> type >> state >> inode;
    std::getline(fields >> std::ws, path);
    if (path == instance.ControlSocket() || path == instance.DeviceSocket()) {
      sockets.insert("socket:[" + inode + "]");
    }
  }
  return sockets;
}

bool HoldsSocket(const std::string& process, const std::set<std::string>& sockets) {
  const std::vector<std::string> fds = ListDirectory(process + "/fd");
  return std::any_of(fds.begin(), fds.end(), [&](const std::string& fd) {
    return sockets.contains(LinkText(process + "/fd/" + fd));
  });
}

// A process in the middle of its exec shows its program before its arguments: they are waited for.
std::vector<std::string> ArgumentsOf(const std::string& process) {
  const Deadline deadline(kExecTimeout);
  Result<std::string> text = ReadFile(process + "/cmdline");
  while (text.ok() && text->empty() && !deadline.Expired()) {
    std::this_thread::sleep_for(milliseconds(1));
    text = ReadFile(process + "/cmdline");
  }
  std::vector<std::string> arguments;
  std::istringstream stream(text.ok() ? *text : "");
  for (std::string argument; std::getline(stream, argument, '\0');) arguments.push_back(argument);
  return arguments;
}

// Whether it was given this instance, in whole arguments.
bool WasStartedFor(const Instance& instance, const std::vector<std::string>& arguments) {
  const auto has = [&arguments](const std::string& argument) {
    return std::find(arguments.begin(), arguments.end(), argument) != arguments.end();
  };
  if (arguments.size() == 6 && arguments[1] == "supervise") {  // As SpawnDetached is given it.
    const std::string root = instance.root().empty() ? "/" : instance.root();
    return arguments[3] == root && arguments[5] == instance.name();
  }
  for (const std::string& argument : RunDirArguments(instance)) {
    if (has(argument)) return true;
  }
  return has("--device=" + instance.DeviceSocket());
}

// In a container there may be an instance of the same name in a directory of the same name.
bool SeesOurs(const Instance& instance, const std::string& process) {
  if (LinkText(process + "/ns/mnt") == LinkText("/proc/self/ns/mnt")) return true;
  struct stat ours, theirs;
  return stat(instance.RunDir().c_str(), &ours) == 0 &&
         stat((process + "/root" + instance.RunDir()).c_str(), &theirs) == 0 &&
         ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}

bool IsGone(const InstanceProcess& process, const Deadline& deadline) {
  for (;;) {
    pollfd entry = {process.pidfd.get(), POLLIN, 0};
    const int n = poll(&entry, 1, static_cast<int>(deadline.Remaining().count()));
    if (n > 0 || (n == 0 && deadline.Expired())) return n > 0;
  }
}

}  // namespace

std::vector<std::string> RunDirArguments(const Instance& instance) {
  return {"--run-dir=" + instance.RunDir(), "--run_dir=" + instance.RunDir()};
}

std::vector<InstanceProcess> FindInstanceProcesses(const Instance& instance) {
  const std::set<std::string> sockets = SocketsOf(instance);
  std::vector<InstanceProcess> found;
  for (const char* program : {kSupervisorProgram, "holdfastd", "holdfast-fetcherd"}) {
    for (const std::string& name : ListDirectory("/proc")) {
      if (name.find_first_not_of("0123456789") != std::string::npos) continue;
      const std::string directory = "/proc/" + name;
      const pid_t pid = std::atoi(name.c_str());
      if (pid == getpid() || ProgramOf(directory) != program) continue;
      // Pinned first, then looked at.
      UniqueFd pidfd(pidfd_open(pid, 0));
      if (!pidfd.valid() || !SeesOurs(instance, directory)) continue;
      std::vector<std::string> arguments = ArgumentsOf(directory);
      if (!WasStartedFor(instance, arguments) && !HoldsSocket(directory, sockets)) continue;
      found.push_back({pid, program, std::move(arguments), std::move(pidfd)});
    }
  }
  return found;
}

Status EndInstanceProcesses(const Instance& instance) {
  const std::vector<InstanceProcess> found = FindInstanceProcesses(instance);
  // A standby does not end by itself: its supervisor ends it, and may come later in the list.
  for (const InstanceProcess& process : found) {
    if (process.program == kSupervisorProgram) {
      pidfd_send_signal(process.pidfd.get(), SIGTERM, nullptr, 0);
      pidfd_send_signal(process.pidfd.get(), SIGCONT, nullptr,
                        0);  // Stopped, it hears nothing else.
    }
  }
  for (const InstanceProcess& process : found) {
    pidfd_send_signal(process.pidfd.get(), SIGTERM, nullptr, 0);
    pidfd_send_signal(process.pidfd.get(), SIGCONT, nullptr, 0);
    if (IsGone(process, Deadline(kProcessTermTimeout))) continue;
    pidfd_send_signal(process.pidfd.get(), SIGKILL, nullptr, 0);
    (void)IsGone(process, Deadline(kProcessKillTimeout));
  }
  const std::vector<InstanceProcess> left = FindInstanceProcesses(instance);
  if (left.empty()) return {};
  return Status(EBUSY, "process " + std::to_string(left.front().pid) + " (" + left.front().program +
                           ") of instance " + instance.name() + " does not end");
}

}  // namespace host
