#include "tests/host/supervisor/supervisor_harness.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "cachecore/system/pid_stamp.h"
#include "tests/host/supervisor/counting_new.h"

namespace host {
namespace {

using cachecore::kPidStampBytesMax;
using cachecore::PutPidStamp;
using cachecore::UniqueFd;

bool WaitReadable(int fd, int ms) {
  pollfd wait{.fd = fd, .events = POLLIN, .revents = 0};
  return poll(&wait, 1, ms) == 1;
}

void KillChildrenOf(pid_t parent) {
  const std::string number = std::to_string(parent);
  std::istringstream pids(ReadFile("/proc/" + number + "/task/" + number + "/children"));
  for (pid_t pid; pids >> pid;) kill(pid, SIGKILL);
}

}  // namespace

std::string PidText(pid_t pid) {
  char text[kPidStampBytesMax];
  return std::string(text, PutPidStamp(pid, ' ', text)) + "\n";
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

int64_t CpuTicks(pid_t pid) {
  const std::string stat = ReadFile("/proc/" + std::to_string(pid) + "/stat");
  std::istringstream fields(stat.substr(stat.rfind(')') + 1));
  std::string skipped;
  for (int i = 3; i < 14; ++i) fields >> skipped;  // Fields are counted from 1; utime is the 14th.
  int64_t user = 0, kernel = 0;
  fields >> user >> kernel;
  return user + kernel;
}

size_t CountChildren(pid_t parent) {
  const std::string number = std::to_string(parent);
  std::istringstream pids(ReadFile("/proc/" + number + "/task/" + number + "/children"));
  return static_cast<size_t>(std::distance(std::istream_iterator<pid_t>(pids), {}));
}

int64_t StatusKb(pid_t pid, const std::string& key) {
  std::istringstream lines(ReadFile("/proc/" + std::to_string(pid) + "/status"));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(key + ":")) return std::stoll(line.substr(key.size() + 1));
  }
  return -1;
}

std::vector<std::string> OpenFds(pid_t pid) {
  std::vector<std::string> fds;
  for (const auto& entry :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd")) {
    fds.push_back(entry.path().filename());
  }
  std::sort(fds.begin(), fds.end());
  return fds;
}

UniqueFd MemFile(const std::string& content) {
  UniqueFd file(memfd_create("stored", MFD_CLOEXEC));
  EXPECT_EQ(write(file.get(), content.data(), content.size()),
            static_cast<ssize_t>(content.size()));
  return file;
}

std::string Life::Do(const std::string& command, const std::vector<int>& fds) {
  alignas(cmsghdr) char ancillary[CMSG_SPACE(sizeof(int) * 64)] = {};
  iovec data{const_cast<char*>(command.data()), command.size()};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = ancillary;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
    memcpy(CMSG_DATA(header), fds.data(), sizeof(int) * fds.size());
  }
  if (sendmsg(control.get(), &message, MSG_NOSIGNAL) < 0) return "gone";
  char answer[512];
  if (!WaitReadable(control.get(), kDeadlineMs)) return "no answer";
  ssize_t size = recv(control.get(), answer, sizeof(answer), 0);
  return size <= 0 ? "gone" : std::string(answer, static_cast<size_t>(size));
}

void Life::Notify(const std::string& text, const std::vector<int>& fds) {
  EXPECT_EQ(Do("notify\n" + text, fds), "1") << text;
}

void Life::NotifyAndWait(const std::string& text, const std::vector<int>& fds) {
  Notify(text, fds);
  EXPECT_EQ(Do("barrier"), "1");
}

bool Life::EndsWithin(int ms) {
  char byte;
  return WaitReadable(control.get(), ms) && recv(control.get(), &byte, 1, 0) <= 0;
}

void Life::Kill() {
  kill(pid, SIGKILL);
  EXPECT_TRUE(EndsWithin(kDeadlineMs));
}

void SupervisorHarness::SetUp() {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  char name[] = "/tmp/supervisor-test-XXXXXX";
  ASSERT_NE(mkdtemp(name), nullptr);
  directory_ = name;
  chmod(name, 0755);
  ASSERT_EQ(mkdir(Path("run").c_str(), 0755), 0);

  listener_.Reset(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  Path("control").copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(listen(listener_.get(), 64), 0);
  status_events_.Reset(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  ASSERT_GE(inotify_add_watch(status_events_.get(), Path("run").c_str(), IN_MOVED_TO), 0);
}

void SupervisorHarness::TearDown() {
  // The supervisor first, or it would start again what is killed next, and stopped before its children
  // are killed, its standby among them; then whatever came to us.
  if (supervisor_pid_ > 0) {
    kill(supervisor_pid_, SIGSTOP);
    KillChildrenOf(supervisor_pid_);
    kill(supervisor_pid_, SIGKILL);
    waitpid(supervisor_pid_, nullptr, 0);
  }
  for (;;) {
    KillChildrenOf(getpid());
    if (waitpid(-1, nullptr, 0) < 0 && errno == ECHILD) break;
  }
  if (HasFailure()) {
    for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
      if (entry.path().extension() != ".log") continue;
      printf("%s:\n%s", entry.path().c_str(), ReadFile(entry.path()).c_str());
    }
    printf("status: %s\n", ReadFile(Path("run/status.json")).c_str());
  }
  std::filesystem::remove_all(directory_);
}

ServiceSpec SupervisorHarness::Spec(const std::string& name) const {
  ServiceSpec spec;
  spec.name = name;
  spec.argv = {TEST_SERVICE_PATH, Path("control"), name};
  spec.log_path = Path(name + ".log");
  spec.pid_path = Path(name + ".pid");
  spec.fd_store_max = 8;
  return spec;
}

SupervisorOptions SupervisorHarness::Options(const std::vector<std::string>& names) const {
  SupervisorOptions options;
  options.run_dir = Path("run");
  options.status_path = Path("run/status.json");
  for (const std::string& name : names) options.services.push_back(Spec(name));
  options.restart.at_once_after = std::chrono::milliseconds(0);
  options.list_time = std::chrono::milliseconds(0);  // test_service lists when it is told to.
  return options;
}

void SupervisorHarness::StartSupervisor(const SupervisorOptions& options) {
  int fds[2];
  ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
  report_.Reset(fds[0]);
  ResetAllocationCount();
  supervisor_pid_ = fork();
  ASSERT_GE(supervisor_pid_, 0);
  if (supervisor_pid_ > 0) {
    close(fds[1]);
    return;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  CountAllocationsHere(true);
  auto result = RunSupervisor(options);
  CountAllocationsHere(false);
  if (result.ok()) _exit(*result);
  dprintf(fds[1], "%d %s", result.status().error(), result.status().message().c_str());
  _exit(100);
}

SupervisorExit SupervisorHarness::WaitSupervisor() {
  SupervisorExit end;
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, supervisor_pid_, 0)));
  if (!WaitReadable(pidfd.get(), kDeadlineMs)) {
    ADD_FAILURE() << "the supervisor does not end";
    return end;
  }
  waitpid(supervisor_pid_, &end.wait_status, 0);
  supervisor_pid_ = 0;
  char text[1024];
  ssize_t size = read(report_.get(), text, sizeof(text));
  std::istringstream report(std::string(text, static_cast<size_t>(std::max<ssize_t>(size, 0))));
  report >> end.error;
  std::getline(report >> std::ws, end.message);
  return end;
}

void SupervisorHarness::FollowSupervisor(pid_t standby) {
  waitpid(supervisor_pid_, nullptr, 0);
  supervisor_pid_ = standby;
}

void SupervisorHarness::SignalSupervisor(int signal) const {
  ASSERT_GT(supervisor_pid_, 0);
  kill(supervisor_pid_, signal);
}

Life SupervisorHarness::NextLife(const std::string& name) {
  for (;;) {
    for (auto life = waiting_lives_.begin(); life != waiting_lives_.end(); ++life) {
      if (life->name != name) continue;
      Life found = std::move(*life);
      waiting_lives_.erase(life);
      return found;
    }
    Life life;
    if (WaitReadable(listener_.get(), kDeadlineMs)) {
      life.control.Reset(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    }
    char hello[4096];
    ssize_t size = life.control.valid() && WaitReadable(life.control.get(), kDeadlineMs)
                       ? recv(life.control.get(), hello, sizeof(hello), 0)
                       : -1;
    if (size <= 0) {
      ADD_FAILURE() << "no life of " << name;
      return life;
    }
    std::istringstream lines(std::string(hello, static_cast<size_t>(size)));
    std::string pid, passed, watchdog;
    std::getline(lines, life.name);
    std::getline(lines, pid);
    std::getline(lines, passed);
    std::getline(lines, watchdog);
    std::getline(lines, life.names);
    life.pid = std::stoi(pid);
    life.passed = std::stoi(passed);
    life.watchdog_usec = std::stoull(watchdog);
    waiting_lives_.push_back(std::move(life));
  }
}

Life SupervisorHarness::Reborn(Life* life) {
  life->Kill();
  return NextLife(life->name);
}

nlohmann::json SupervisorHarness::WaitStatus(
    const std::function<bool(const nlohmann::json&)>& wanted) {
  auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kDeadlineMs);
  for (;;) {
    // Events first, then the file: one written in between is an event still to come.
    char events[4096];
    while (read(status_events_.get(), events, sizeof(events)) > 0) {
    }
    const std::string text = ReadFile(Path("run/status.json"));
    auto status = nlohmann::json::parse(text, nullptr, false);
    if (!text.empty() && status.is_discarded()) ADD_FAILURE() << "not JSON: " << text;
    if (!text.empty() && wanted(status)) return status;
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0 || !WaitReadable(status_events_.get(), static_cast<int>(left.count()))) {
      ADD_FAILURE() << "the status never became the one waited for: " << text;
      return status;
    }
  }
}

nlohmann::json SupervisorHarness::WaitState(const std::string& service, const std::string& state) {
  return WaitStatus([&](const nlohmann::json& status) {
    return ServiceOf(status, service).value("state", "") == state;
  });
}

size_t SupervisorHarness::SettledFds(Life* life) const {
  // Readers of the status file are woken by its name, while the supervisor may still hold it open;
  // a ping that has been obeyed came after that, and changes nothing in the file.
  life->NotifyAndWait("WATCHDOG=1");
  return OpenFds(supervisor_pid()).size();
}

nlohmann::json SupervisorHarness::ServiceOf(const nlohmann::json& status, const std::string& name) {
  for (const auto& service : status.value("services", nlohmann::json::array())) {
    if (service.value("name", "") == name) return service;
  }
  return nlohmann::json::object();
}

}  // namespace host
