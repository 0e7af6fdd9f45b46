// SupervisedService: one service of a supervisor: its process, its spare, what it stored and its
// state.
//
// Model    waiting > starting > ready > stopping > stopped, with aborting and killed beside.  The
//          end of a process is noted first and acted on later, once all is read that it said
//          before.  A service that ends for any reason is started again with what it stored; one
//          that died has its spare take over, if it keeps one.
// Errors   Create: those of RunSupervisor that are a service's own.
// Threads  one thread only.
// Owns     the process, the spare, the stored descriptors, the notify socket and the pid file.
// Cost     takes all memory in Create.
// Crash    a copy of the supervisor that takes over calls Adopt.

#ifndef HOST_SUPERVISOR_SUPERVISED_SERVICE_H_
#define HOST_SUPERVISOR_SUPERVISED_SERVICE_H_

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/environment/descriptor_table.h"
#include "cachecore/system/process.h"
#include "host/notify/notify_message.h"
#include "host/notify/notify_socket.h"
#include "host/notify/stored_descriptors.h"
#include "host/supervisor/child_process.h"
#include "host/supervisor/restart_backoff.h"
#include "host/supervisor/service_state.h"
#include "host/supervisor/spare.h"
#include "host/supervisor/supervise_status.h"
#include "host/supervisor/supervise_text.h"
#include "host/supervisor/supervisor.h"

namespace host {

class SupervisedService {
 public:
  static constexpr size_t kPollFds = 4;

  static cachecore::Result<std::unique_ptr<SupervisedService>> Create(
      const SupervisorOptions& options, const ServiceSpec& spec, int first_stored_fd);

  // Goes on with a process that has lost its supervisor, and with what it had stored.  False: there
  // is none, or it stores nothing.  An error leaves the store as Create made it.  Before the first
  // Start only.
  cachecore::Result<bool> AdoptOrphan();
  // Whether another program in this process could go on with what runs, as AdoptOrphan does.
  cachecore::Status CheckAdoptable() const;
  bool is_running() const { return pid_ != 0; }
  const StoredDescriptors& store() const { return *store_; }
  void Start();
  // The next message, which stays in the socket until DropMessage; false when there is none.  To do
  // what it says twice changes nothing more.
  bool ObeyMessage(NotifyDatagram* datagram);
  void DropMessage();
  // Looks at all but the messages and the service's end.
  void OnInput();
  // Where it is not our child: notes its end.
  void LookForEnd();
  // A child process has ended.
  void NoteExit(pid_t pid, int wait_status);
  // Acts on what was noted.
  void OnEnd();
  void OnDeadline();

  // What there is to wait for, and until when.
  std::array<int, kPollFds> poll_fds() const;
  cachecore::Duration deadline() const;

  // Goes on with what an earlier supervisor has counted.  Before Start.
  void GoOnWith(const ServiceTotals& totals) { totals_ = totals; }
  // In a copy of the supervisor that has taken over.
  void Adopt();
  // It, and its spare, write to a new log file from now on.
  void ReopenLog() const;
  // No spare, and no start of what ends.
  void BeginToStop();
  // Has it end.  True once it has.
  bool Stop();
  bool is_stopped() const;
  // Closes what it stored, and removes its pid file.
  void Forget();

  // Whether something has changed that a copy has to know, since the last call.
  bool TakeChanged();
  ServiceStatus Describe() const;
  const std::string& program() const { return launcher_->program(); }
  const std::string& name() const { return spec_.name; }

 private:
  SupervisedService(const SupervisorOptions& options, const ServiceSpec& spec)
      : options_(options), spec_(spec), backoff_(options.restart) {}

  cachecore::Status StoreGiven();
  cachecore::Status StoreCopies(std::vector<cachecore::DescriptorTable::Copy> copies);
  void Obey(const NotifyMessage& message);
  void Store(NotifyDatagram* datagram, const NotifyMessage& message);
  bool StartFromSpare();
  void SetChild(pid_t pid);
  void SetProcess(cachecore::PinnedProcess process, bool is_child);
  void Signal(int number) const;
  void DescribeEnd(std::optional<int> wait_status);
  EndReason ReasonOf(std::optional<int> wait_status) const;
  void NoteAway();
  void RetryLater(cachecore::Duration delay);
  void Abort(const char* fault);
  void Enter(State state, cachecore::Duration time_to_deadline);
  void EnterServing(State state);
  cachecore::Duration QuietLimit(State state) const;

  const SupervisorOptions& options_;
  const ServiceSpec& spec_;
  std::unique_ptr<NotifySocket> socket_;
  std::unique_ptr<StoredDescriptors> store_;
  std::unique_ptr<ChildLauncher> launcher_;
  std::unique_ptr<Spare> spare_;  // Null: this service keeps none.
  RestartBackoff backoff_;

  State state_ = State::kWaiting;
  pid_t pid_ = 0;  // 0: not running.
  cachecore::UniqueFd process_;
  bool is_child_ = true;
  bool has_ended_ = false;          // Noted.
  std::optional<int> wait_status_;  // Of the end, where it was our child.
  cachecore::Duration started_at_{0};
  cachecore::Duration watchdog_{0};  // Of this life: WATCHDOG_USEC= may have changed it.
  cachecore::Duration deadline_{0};  // When OnDeadline has something to do; what, `state_` says.
  bool was_ready_ = false;           // This life has said READY=1.
  bool stopping_ = false;
  bool term_sent_ = false;  // By us, because the supervisor stops.
  bool changed_ = true;
  const char* fault_ = "";  // Why we ended it ourselves; goes before last_exit.
  uint64_t restarts_ = 0;
  ServiceTotals totals_;
  cachecore::Duration away_since_{0};  // Zero: it serves, or has never served.
  int64_t since_ms_ = 0;
  int64_t retry_at_ms_ = 0;
  FixedText<kLastExitBytesMax> last_exit_;
  FixedText<kStatusTextBytesMax> status_;
};

}  // namespace host

#endif  // HOST_SUPERVISOR_SUPERVISED_SERVICE_H_
