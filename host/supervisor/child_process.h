// ChildLauncher: starts one service, again and again, from memory taken once.  Other programs are
// started by cachecore/system/spawn.h, which allocates memory and copies page tables.
//
// Model    everything execve() needs (argv, environment, paths) is laid out by Create in buffers of
//          their final size; Start only fills in numbers and names.  The child gets NOTIFY_SOCKET,
//          the stored descriptors at 3, 4, ... with LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES (none
//          of the three when nothing is stored), WATCHDOG_USEC and WATCHDOG_PID when it has a
//          watchdog, /dev/null as stdin, its log file as stdout and stderr, no blocked signal, and
//          no other descriptor.
// Errors   Create: ENOENT, EACCES or EISDIR for a program that can't be run.  Start: see there.
// Threads  one thread only.  Start returns once the child has exec'ed: it waits for the disk that
//          holds the program, the log and the pid file.
// Crash    the child writes its own pid file before it execs, so there's no moment in which a
//          service runs that the next supervisor couldn't find.
// See      sd_listen_fds(3), sd_watchdog_enabled(3).

#ifndef HOST_SUPERVISOR_CHILD_PROCESS_H_
#define HOST_SUPERVISOR_CHILD_PROCESS_H_

#include <sys/mman.h>
#include <sys/types.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "cachecore/base/status.h"
#include "host/notify/stored_descriptors.h"

namespace host {

struct LaunchSpec {
  std::vector<std::string> argv;  // argv[0] without '/' is looked up in PATH, once.
  std::string notify_socket;
  std::string log_path;
  std::string pid_path;                   // "": none.
  std::chrono::microseconds watchdog{0};  // 0: none.
  size_t fds_max = 0;                     // The capacity of the store given to Start.
  bool brings = false;                    // What it is given of our environment: ServiceMayHave.
};

class ChildLauncher {
 public:
  static cachecore::Result<std::unique_ptr<ChildLauncher>> Create(const LaunchSpec& spec);

  // The child's pid, or a negative errno when there's no child.  A child that could not exec exits
  // with 127 and leaves the reason in exec_error().
  pid_t Start(const StoredDescriptors& store);
  int exec_error() const { return *exec_error_; }
  // Names a process that was started otherwise in the pid file.
  void WritePidFile(pid_t pid) const;
  // The process has ended.  With `keep_room` what the file takes on the disk is kept for the next.
  void RetirePidFile(bool keep_room) const;
  const std::string& program() const { return program_; }

 private:
  struct UnmapInt {
    void operator()(int* shared) const { munmap(shared, sizeof(*shared)); }
  };

  ChildLauncher() = default;
  void LayOutEnvironment();
  void FillEnvironment(const StoredDescriptors& store);
  [[noreturn]] void RunChild(const StoredDescriptors& store);

  LaunchSpec spec_;
  std::string program_;
  std::string pid_path_tmp_;
  std::string oom_score_adj_;  // What this process had before it made itself unattractive.
  std::vector<char*> argv_;
  std::vector<std::string> env_strings_;
  std::vector<char*> env_;  // Fixed entries, then room for the LISTEN_ ones, then null.
  size_t env_fixed_ = 0;
  std::vector<char> listen_names_;
  char listen_pid_[32] = {};
  char listen_fds_[32] = {};
  char watchdog_pid_[32] = {};
  // Written by the child.  A shared page, since not every vfork shares memory (a sanitizer's
  // forks).
  std::unique_ptr<int, UnmapInt> exec_error_;
};

}  // namespace host

#endif  // HOST_SUPERVISOR_CHILD_PROCESS_H_
