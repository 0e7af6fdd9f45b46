// SupervisorHarness: RunSupervisor in a process of its own, with services that do as the test says.
//
// Model    each life of a service connects to the test; the connection ends with it.  So everything
//          is waited for as an event, with a deadline that fails the test.
// Owns     every process of the test (it is their subreaper) and the folder: both end with it.

#ifndef TESTS_HOST_SUPERVISOR_SUPERVISOR_HARNESS_H_
#define TESTS_HOST_SUPERVISOR_SUPERVISOR_HARNESS_H_

#include <gtest/gtest.h>
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cachecore/base/unique_fd.h"
#include "host/supervisor/supervisor.h"

namespace host {

inline constexpr int kDeadlineMs = 15000;

// One life of one service.
struct Life {
  std::string name;
  pid_t pid = 0;
  int passed = 0;
  std::string names;  // As sd_listen_fds_with_names gave them, ':'-joined.
  uint64_t watchdog_usec = 0;
  cachecore::UniqueFd control;

  std::string Do(const std::string& command, const std::vector<int>& fds = {});
  // Through libsystemd; succeeds when it was sent, or with `barrier` when it was processed.
  void Notify(const std::string& text, const std::vector<int>& fds = {});
  void NotifyAndWait(const std::string& text, const std::vector<int>& fds = {});
  bool EndsWithin(int ms);
  void Kill();  // Returns once it's dead.
};

struct SupervisorExit {
  int wait_status = 0;
  int error = 0;  // Of the Status, when RunSupervisor failed.
  std::string message;
};

class SupervisorHarness : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  ServiceSpec Spec(const std::string& name) const;
  // `services` of Spec, store of 8, `required_ready` off.
  SupervisorOptions Options(const std::vector<std::string>& names) const;

  void StartSupervisor(const SupervisorOptions& options);
  SupervisorExit WaitSupervisor();
  void SignalSupervisor(int signal) const;
  pid_t supervisor_pid() const { return supervisor_pid_; }
  // The supervisor is dead, and this process, its standby until then, has taken over.
  void FollowSupervisor(pid_t standby);

  // The next life of that service; of whichever says hello first, others wait for their turn.
  Life NextLife(const std::string& name);
  // Kills and returns the next.
  Life Reborn(Life* life);

  // The status file once it satisfies `wanted`.
  nlohmann::json WaitStatus(const std::function<bool(const nlohmann::json&)>& wanted);
  nlohmann::json WaitState(const std::string& service, const std::string& state);
  // How many descriptors the supervisor has when it writes no status file.  REQUIRES: `life` runs.
  size_t SettledFds(Life* life) const;
  static nlohmann::json ServiceOf(const nlohmann::json& status, const std::string& name);

  std::string Path(const std::string& file) const { return directory_ + "/" + file; }

 private:
  std::string directory_;
  cachecore::UniqueFd listener_;
  cachecore::UniqueFd status_events_;
  cachecore::UniqueFd report_;
  pid_t supervisor_pid_ = 0;
  std::list<Life> waiting_lives_;
};

std::string ReadFile(const std::string& path);
// What the pid file of this process holds.
std::string PidText(pid_t pid);
int64_t CpuTicks(pid_t pid);         // Used so far, in user mode and in the kernel.
size_t CountChildren(pid_t parent);  // Those not reaped among them.
int64_t StatusKb(pid_t pid, const std::string& key);  // "VmRSS" and the like.
std::vector<std::string> OpenFds(pid_t pid);          // "0", "1", ... sorted.
cachecore::UniqueFd MemFile(const std::string& content);

}  // namespace host

#endif  // TESTS_HOST_SUPERVISOR_SUPERVISOR_HARNESS_H_
