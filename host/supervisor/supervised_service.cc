#include "host/supervisor/supervised_service.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "host/notify/orphan.h"
#include "host/supervisor/supervise_time.h"
#include "host/supervisor/supervisor_setup.h"

namespace host {

using cachecore::Duration;
using cachecore::PinnedProcess;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

namespace {

bool Runs(const UniqueFd& pidfd) {
  pollfd entry{pidfd.get(), POLLIN, 0};
  return pidfd.valid() && poll(&entry, 1, 0) == 0;
}

}  // namespace

Result<std::unique_ptr<SupervisedService>> SupervisedService::Create(
    const SupervisorOptions& options, const ServiceSpec& spec, int first_stored_fd) {
  std::unique_ptr<SupervisedService> service(new SupervisedService(options, spec));
  ASSIGN_OR_RETURN(service->socket_,
                   NotifySocket::Bind(NotifyPath(options.run_dir, spec.name), spec.uid));
  ASSIGN_OR_RETURN(service->store_, StoredDescriptors::Create(spec.fd_store_max, first_stored_fd));
  RETURN_IF_ERROR(service->StoreGiven());
  LaunchSpec launch{.argv = spec.argv,
                    .notify_socket = service->socket_->path(),
                    .log_path = spec.log_path,
                    .pid_path = spec.pid_path,
                    .watchdog = spec.watchdog,
                    .fds_max = spec.fd_store_max,
                    .brings = spec.brings};
  ASSIGN_OR_RETURN(service->launcher_, ChildLauncher::Create(launch));
  if (spec.keep_spare) {
    ASSIGN_OR_RETURN(service->spare_, Spare::Create(launch, first_stored_fd, options.restart));
  }
  UniqueFd log(open(spec.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (!log.valid()) return Status::FromErrno(errno, "open the log file " + spec.log_path);
  return service;
}

Status SupervisedService::StoreGiven() {
  for (const auto& [name, fd] : spec_.stored_fds) {
    UniqueFd copy(fcntl(fd, F_DUPFD_CLOEXEC, 3));
    if (store_->Add(std::move(copy), name, /*poll=*/false) !=
        StoredDescriptors::AddOutcome::kStored) {
      return Status(EINVAL, "descriptor '" + name + "' can't be stored");
    }
  }
  return Status();
}

Status SupervisedService::StoreCopies(std::vector<cachecore::DescriptorTable::Copy> copies) {
  for (cachecore::DescriptorTable::Copy& copy : copies) {
    if (!IsValidFdName(copy.name)) {
      Say("%s: a descriptor is left out, since its name is not valid", spec_.name.c_str());
      continue;
    }
    const auto outcome = store_->Add(std::move(copy.fd), copy.name, copy.is_polled);
    if (outcome == StoredDescriptors::AddOutcome::kFull) {
      return Status(ENOSPC, "descriptor '" + copy.name + "' has no room: the store holds " +
                                std::to_string(store_->capacity()));
    }
    if (outcome == StoredDescriptors::AddOutcome::kFailed) {
      return Status::FromErrno(errno, "store descriptor '" + copy.name + "'");
    }
  }
  return Status();
}

// The socket is bound: what the process stores or removes from now on is told there too.
Result<bool> SupervisedService::AdoptOrphan() {
  if (spec_.fd_store_max == 0) return false;  // It lists nothing, and loses nothing by its end.
  ASSIGN_OR_RETURN(std::optional<Orphan> orphan,
                   FindOrphan(spec_.pid_path, program(), spec_.argv, options_.list_time));
  if (!orphan) return false;
  store_->Clear();  // What it had is what its next life has.
  if (Status stored = StoreCopies(std::move(orphan->stored.copies)); !stored.ok()) {
    store_->Clear();
    RETURN_IF_ERROR(StoreGiven());
    return std::move(stored).WithContext("go on with process " +
                                         std::to_string(orphan->process.pid));
  }
  SetProcess(std::move(orphan->process), orphan->is_child);
  started_at_ = MonotonicNow();
  watchdog_ = spec_.watchdog;
  was_ready_ = orphan->stored.is_ready || !spec_.required_ready;
  EnterServing(was_ready_ ? State::kReady : State::kStarting);
  Say("goes on with %s (pid %d)%s, and with %zu descriptors that it had stored", spec_.name.c_str(),
      pid_, is_child_ ? "" : " of an earlier supervisor", store_->size());
  return true;
}

Status SupervisedService::CheckAdoptable() const {
  if (spec_.fd_store_max == 0 || !Runs(process_)) return Status();
  return host::CheckAdoptable(pid_, process_)
      .WithContext("a new one could not go on with " + spec_.name);
}

std::array<int, SupervisedService::kPollFds> SupervisedService::poll_fds() const {
  return {socket_->fd(), store_->poll_fd(), spare_ != nullptr ? spare_->poll_fd() : -1,
          is_child_ ? -1 : process_.get()};
}

Duration SupervisedService::deadline() const {
  return spare_ != nullptr ? std::min(deadline_, spare_->deadline()) : deadline_;
}

bool SupervisedService::ObeyMessage(NotifyDatagram* datagram) {
  if (!socket_->Peek(datagram)) return false;
  const auto message = ParseNotifyMessage(datagram->text());
  // A user's other processes do not speak for the service.
  const bool is_its_own = datagram->is_root || datagram->sender == pid_;
  if (datagram->trusted && is_its_own && message) {
    if (message->fd_store_remove && message->fd_name) {
      if (store_->Remove(*message->fd_name) > 0) changed_ = true;
    }
    if (message->fd_store) Store(datagram, *message);
    Obey(*message);
  }
  datagram->CloseFds();
  return true;
}

// What wasn't stored is closed here; a barrier's sender waits for just that.
void SupervisedService::DropMessage() { socket_->Drop(); }

void SupervisedService::OnInput() {
  if (store_->RemoveHungUp() > 0) changed_ = true;
  if (spare_ != nullptr && spare_->OnInput()) changed_ = true;
}

void SupervisedService::Obey(const NotifyMessage& message) {
  if (message.status && *message.status != status_.view()) {
    status_.Assign(*message.status);
    changed_ = true;
  }
  if (state_ == State::kTakingOver) {
    EnterServing(spec_.required_ready ? State::kStarting : State::kReady);
  }
  bool serving = state_ == State::kStarting || state_ == State::kReady;
  if (!serving) return;  // The rest is about a life that is over or ending.

  if (message.watchdog_usec) {
    // More than a year is systemd's way to write "never".
    constexpr uint64_t kUsecMax = 366ULL * 24 * 3600 * 1'000'000;
    bool off = *message.watchdog_usec > kUsecMax;
    watchdog_ = std::chrono::microseconds(off ? 0 : *message.watchdog_usec);
    changed_ = true;
  }
  if (message.stopping) {
    Enter(State::kStopping, options_.stop_grace);
  } else if (message.watchdog_trigger) {
    Abort("asked for by WATCHDOG=trigger: ");
  } else if (message.ready && state_ == State::kStarting) {
    was_ready_ = true;
    EnterServing(State::kReady);
  } else if (message.watchdog_ping || message.watchdog_usec) {
    deadline_ = DeadlineIn(QuietLimit(state_));
  }
}

void SupervisedService::Store(NotifyDatagram* datagram, const NotifyMessage& message) {
  std::string_view name = message.fd_name.value_or(kDefaultFdName);
  for (size_t i = 0; i < datagram->fd_count; ++i) {
    auto outcome = store_->Add(std::move(datagram->fds[i]), name, message.fd_poll);
    if (outcome == StoredDescriptors::AddOutcome::kStored) changed_ = true;
    if (outcome == StoredDescriptors::AddOutcome::kFull ||
        outcome == StoredDescriptors::AddOutcome::kFailed) {
      Say("%s: descriptor '%.*s' refused: the store holds %zu of %zu", spec_.name.c_str(),
          static_cast<int>(name.size()), name.data(), store_->size(), store_->capacity());
    }
  }
}

void SupervisedService::Start() {
  status_.Assign("");
  fault_ = "";
  was_ready_ = false;
  retry_at_ms_ = 0;
  watchdog_ = spec_.watchdog;
  started_at_ = MonotonicNow();
  if (StartFromSpare()) return;
  pid_t pid = launcher_->Start(*store_);
  if (pid < 0) {
    char text[kLastExitBytesMax];
    snprintf(text, sizeof(text), "could not be started: %s", strerrordesc_np(-pid));
    last_exit_.Assign(text);
    RetryLater(backoff_.DelayAfter(Duration::zero()));
    return;
  }
  SetChild(pid);
  EnterServing(spec_.required_ready ? State::kStarting : State::kReady);
}

bool SupervisedService::StartFromSpare() {
  const pid_t pid = spare_ != nullptr ? spare_->Fit() : 0;
  if (pid == 0) return false;
  // First, so that there is no moment in which the next supervisor could not find it.
  launcher_->WritePidFile(pid);
  if (!spare_->HandOver(*store_)) return false;
  SetChild(pid);
  Enter(State::kTakingOver, options_.spare_patience);
  return true;
}

void SupervisedService::SetChild(pid_t pid) {
  // Of a copy of the supervisor alone; without it the pid file names the process.
  SetProcess({pid, UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)))}, true);
}

void SupervisedService::SetProcess(PinnedProcess process, bool is_child) {
  pid_ = process.pid;
  process_ = std::move(process.pidfd);
  is_child_ = is_child;
  has_ended_ = false;
  wait_status_.reset();
}

void SupervisedService::Signal(int number) const {
  if (has_ended_) return;
  if (is_child_) {
    kill(pid_, number);  // Not reaped: the number is its own.
  } else {
    syscall(SYS_pidfd_send_signal, process_.get(), number, nullptr, 0);
  }
}

void SupervisedService::NoteExit(pid_t pid, int wait_status) {
  if (spare_ != nullptr && spare_->OnExit(pid)) changed_ = true;
  if (pid_ == 0 || pid != pid_ || !is_child_) return;
  has_ended_ = true;
  wait_status_ = wait_status;
  NoteAway();
}

void SupervisedService::LookForEnd() {
  if (pid_ == 0 || is_child_ || Runs(process_)) return;
  has_ended_ = true;
  NoteAway();
}

void SupervisedService::DescribeEnd(std::optional<int> wait_status) {
  char text[kLastExitBytesMax];
  if (!wait_status) {
    snprintf(text, sizeof(text), "%sended while it was no child of the supervisor", fault_);
  } else if (WIFSIGNALED(*wait_status)) {
    const char* name = sigabbrev_np(WTERMSIG(*wait_status));
    snprintf(text, sizeof(text), "%skilled by signal %d (SIG%s)", fault_, WTERMSIG(*wait_status),
             name != nullptr ? name : "?");
  } else if (launcher_->exec_error() != 0) {
    snprintf(text, sizeof(text), "could not be started: %s",
             strerrordesc_np(launcher_->exec_error()));
  } else {
    snprintf(text, sizeof(text), "%sexited with code %d", fault_, WEXITSTATUS(*wait_status));
  }
  last_exit_.Assign(text);
  Say("%s (pid %d) %s", spec_.name.c_str(), pid_, text);
}

EndReason SupervisedService::ReasonOf(std::optional<int> wait_status) const {
  if (fault_[0] != '\0') return EndReason::kHung;
  if (!wait_status) return EndReason::kUnknown;
  if (WIFSIGNALED(*wait_status)) return EndReason::kSignal;
  if (launcher_->exec_error() != 0) return EndReason::kNotStarted;
  return WEXITSTATUS(*wait_status) == 0 ? EndReason::kEnded : EndReason::kExit;
}

// Where it had served: what is never ready is no pause.
void SupervisedService::NoteAway() {
  if (spec_.required_ready && was_ready_ && away_since_ == Duration::zero()) {
    away_since_ = MonotonicNow();
  }
}

void SupervisedService::OnEnd() {
  if (!has_ended_) return;
  const std::optional<int> wait_status = wait_status_;
  // One that ended as it was told to may have been told so for the sake of the program on disk.
  const bool ended = wait_status ? WIFEXITED(*wait_status) && WEXITSTATUS(*wait_status) == 0
                                 : state_ == State::kStopping;
  DescribeEnd(wait_status);
  SetProcess({}, /*is_child=*/true);
  launcher_->RetirePidFile(/*keep_room=*/!stopping_);
  if (stopping_) {
    Enter(State::kStopped, kNever);
    return;
  }
  if (spare_ != nullptr && ended) spare_->Stop();
  ++restarts_;
  totals_.NoteEnd(ReasonOf(wait_status));
  // One that never got ready is no better for having tried for long.
  const bool served = !spec_.required_ready || was_ready_;
  const Duration lived = served ? MonotonicNow() - started_at_ : Duration::zero();
  Duration delay = backoff_.DelayAfter(lived);
  if (delay == Duration::zero()) {
    Start();
  } else {
    RetryLater(delay);
  }
}

void SupervisedService::RetryLater(Duration delay) {
  Enter(State::kWaiting, delay);
  auto delay_ms = std::chrono::duration_cast<std::chrono::milliseconds>(delay);
  retry_at_ms_ = since_ms_ + delay_ms.count();
}

void SupervisedService::OnDeadline() {
  if (spare_ != nullptr && spare_->deadline() <= MonotonicNow()) {
    spare_->OnDeadline();
    changed_ = true;
  }
  if (deadline_ > MonotonicNow()) return;
  switch (state_) {
    case State::kWaiting:
      Start();
      return;
    case State::kTakingOver:
      fault_ = "spare did not take over in time: ";
      Signal(SIGKILL);
      Enter(State::kKilled, kNever);
      return;
    case State::kStarting:
      Abort("not ready in time: ");
      return;
    case State::kReady:
      Abort("watchdog: ");
      return;
    case State::kStopping:
      fault_ = "did not stop in time: ";
      [[fallthrough]];
    case State::kAborting:
      Signal(SIGKILL);
      Enter(State::kKilled, kNever);
      return;
    case State::kKilled:
    case State::kStopped:
      return;
  }
}

void SupervisedService::Abort(const char* fault) {
  fault_ = fault;
  Signal(SIGABRT);
  Enter(State::kAborting, options_.abort_grace);
}

// The process that serves now is the one that this copy knows of, or what was started since the copy
// was made: its pid file names it from before it could do anything.
void SupervisedService::Adopt() {
  const pid_t spare = spare_ != nullptr ? spare_->pid() : 0;
  if (spare_ != nullptr) spare_->Abandon();
  is_child_ = false;
  PinnedProcess named;
  if (!Runs(process_)) named = cachecore::PinPidFile(spec_.pid_path);
  // One that has ended, and that its parent has not reaped, has its pid file still.
  const bool named_runs = Runs(named.pidfd);
  if (named_runs && named.pid == pid_) process_ = std::move(named.pidfd);
  if (Runs(process_)) {
    if (state_ == State::kStarting || state_ == State::kReady) EnterServing(state_);
    if (state_ == State::kTakingOver) Enter(state_, options_.spare_patience);
    return;
  }
  if (!named_runs) {
    has_ended_ = pid_ != 0;
    if (has_ended_) NoteAway();
    changed_ = true;
    return;
  }
  NoteAway();
  totals_.NoteEnd(EndReason::kUnknown);
  const bool was_spare = named.pid == spare;
  SetProcess(std::move(named), /*is_child=*/false);
  ++restarts_;
  fault_ = "";
  was_ready_ = false;
  started_at_ = MonotonicNow();
  watchdog_ = spec_.watchdog;
  if (was_spare) {
    Enter(State::kTakingOver, options_.spare_patience);
  } else {
    EnterServing(spec_.required_ready ? State::kStarting : State::kReady);
  }
}

void SupervisedService::ReopenLog() const {
  Signal(SIGHUP);
  // A child that has ended keeps its number until it is reaped, which is ours to do.
  if (spare_ != nullptr && spare_->pid() != 0) kill(spare_->pid(), SIGHUP);
}

void SupervisedService::BeginToStop() {
  stopping_ = true;
  if (spare_ != nullptr) spare_->Stop();
}

bool SupervisedService::Stop() {
  if (state_ == State::kStopped) return true;
  if (pid_ == 0) {
    retry_at_ms_ = 0;
    Enter(State::kStopped, kNever);
    return true;
  }
  if (std::exchange(term_sent_, true)) return false;
  Signal(SIGTERM);
  Signal(SIGCONT);  // A stopped process would keep the SIGTERM for later.
  bool ending = state_ == State::kAborting || state_ == State::kKilled;
  if (!ending) Enter(State::kStopping, options_.stop_grace);
  return false;
}

bool SupervisedService::is_stopped() const {
  const bool spare_runs = spare_ != nullptr && spare_->pid() != 0;
  return state_ == State::kStopped && !spare_runs;
}

void SupervisedService::Forget() {
  store_->Clear();
  launcher_->RetirePidFile(/*keep_room=*/false);
}

bool SupervisedService::TakeChanged() { return std::exchange(changed_, false); }

ServiceStatus SupervisedService::Describe() const {
  return {.name = spec_.name,
          .pid = pid_,
          .spare = spare_ != nullptr ? spare_->warm_pid() : 0,
          .state = StateName(state_),
          .since_ms = since_ms_,
          .restarts = restarts_,
          .retry_at_ms = retry_at_ms_,
          .totals = totals_,
          .last_exit = last_exit_.view(),
          .status = status_.view(),
          .fd_store = store_.get()};
}

void SupervisedService::Enter(State state, Duration time_to_deadline) {
  state_ = state;
  deadline_ = DeadlineIn(time_to_deadline);
  since_ms_ = WallMs();
  changed_ = true;
}

void SupervisedService::EnterServing(State state) {
  if (state == State::kReady && away_since_ != Duration::zero()) {
    totals_.NotePause(MonotonicNow() - std::exchange(away_since_, Duration::zero()));
  }
  Enter(state, QuietLimit(state));
  if (state == State::kReady && spare_ != nullptr && !stopping_) {
    spare_->WantAt(MonotonicNow() + options_.spare_delay);
  }
}

// How long a running service may say nothing.
Duration SupervisedService::QuietLimit(State state) const {
  Duration limit = state == State::kStarting ? Duration(options_.ready_timeout) : watchdog_;
  return limit == Duration::zero() ? kNever : limit;
}

}  // namespace host
