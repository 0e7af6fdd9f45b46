#include "cli/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "cachecore/unique_fd.h"
#include "cli/child_process.h"
#include "cli/fd_store.h"
#include "cli/notify_message.h"
#include "cli/notify_socket.h"
#include "cli/service_state.h"
#include "cli/spare.h"
#include "cli/supervise_status.h"
#include "cli/supervise_text.h"
#include "cli/supervise_time.h"
#include "cli/supervisor_setup.h"

namespace cli {
namespace {

using cachecore::Duration;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

// One turn of the loop takes this many datagrams of a service at most: a flood starves nobody.
constexpr int kDatagramsPerTurn = 1024;

struct Service {
  const ServiceSpec* spec = nullptr;
  std::unique_ptr<NotifySocket> socket;
  std::unique_ptr<FdStore> store;
  std::unique_ptr<ChildLauncher> launcher;
  std::unique_ptr<Spare> spare;  // Null: this service keeps none.
  std::optional<RestartBackoff> backoff;

  State state = State::kWaiting;
  pid_t pid = 0;  // 0: not running.
  Duration started_at{0};
  Duration watchdog{0};    // Of this life: WATCHDOG_USEC= may have changed it.
  Duration deadline{0};    // When OnDeadline has something to do; what, `state` says.
  bool was_ready = false;  // This life has said READY=1.
  bool term_sent = false;  // By us, because the supervisor stops.
  const char* fault = "";  // Why we ended it ourselves; goes before last_exit.
  uint64_t restarts = 0;
  int64_t since_ms = 0;
  int64_t retry_at_ms = 0;
  FixedText<kLastExitBytesMax> last_exit;
  FixedText<kStatusTextBytesMax> status;
};

class Supervisor {
 public:
  explicit Supervisor(const SupervisorOptions& options)
      : options_(options),
        status_(options.status_path, options.services.size(), StoredFdsMax(options)) {}

  Status Prepare();
  int Run();

 private:
  static size_t StoredFdsMax(const SupervisorOptions& options);
  Status PrepareService(const ServiceSpec& spec, int first_stored_fd, Service* service);

  void Wait();
  void ReadSignals();
  void ReadNotifications(Service* service);
  void Obey(Service* service, const NotifyMessage& message);
  void StoreFds(Service* service, const NotifyMessage& message);
  void Reap();
  void Start(Service* service);
  bool StartFromSpare(Service* service);
  void OnExit(Service* service, int wait_status);
  void RetryLater(Service* service, Duration delay);
  void OnDeadline(Service* service);
  void Abort(Service* service, const char* fault);
  void StopNext();
  bool AllStopped() const;
  void WriteStatus();

  void Enter(Service* service, State state, Duration time_to_deadline);
  void EnterServing(Service* service, State state);
  Duration QuietLimit(const Service& service, State state) const;

  const SupervisorOptions& options_;
  SuperviseStatus status_;
  UniqueFd lock_;
  UniqueFd signals_;
  std::vector<Service> services_;
  NotifyDatagram received_;  // Too large for a stack, and empty between two datagrams.
  int64_t since_ms_ = WallMs();
  bool stopping_ = false;
  bool child_exited_ = false;
  bool changed_ = true;
  bool status_failed_ = false;
};

size_t Supervisor::StoredFdsMax(const SupervisorOptions& options) {
  size_t sum = 0;
  for (const ServiceSpec& spec : options.services) sum += spec.fd_store_max;
  return sum;
}

Status Supervisor::Prepare() {
  RETURN_IF_ERROR(CheckSupervisorOptions(options_));
  ASSIGN_OR_RETURN(lock_, LockRunDir(options_.run_dir));
  ASSIGN_OR_RETURN(signals_, BlockSignals());

  size_t store_max = 0;
  for (const ServiceSpec& spec : options_.services) {
    store_max = std::max(store_max, spec.fd_store_max);
  }
  services_ = std::vector<Service>(options_.services.size());
  for (size_t i = 0; i < services_.size(); ++i) {
    const ServiceSpec& spec = options_.services[i];
    Status prepared = PrepareService(spec, 3 + static_cast<int>(store_max), &services_[i]);
    if (!prepared.ok()) return std::move(prepared).WithContext("service " + spec.name);
  }
  for (size_t i = services_.size(); i-- > 0;) {
    const ServiceSpec& spec = options_.services[i];
    ASSIGN_OR_RETURN(pid_t ended, EndStaleProcess(spec.pid_path, services_[i].launcher->program(),
                                                  spec.argv, options_.stop_grace));
    if (ended > 0) Say("ended %s of an earlier supervisor (pid %d)", spec.name.c_str(), ended);
  }
  HardenProcess();
  return Status();
}

Status Supervisor::PrepareService(const ServiceSpec& spec, int first_stored_fd, Service* service) {
  service->spec = &spec;
  service->backoff.emplace(options_.restart);
  ASSIGN_OR_RETURN(service->socket,
                   NotifySocket::Bind(options_.run_dir + "/" + spec.name + ".notify", spec.uid));
  ASSIGN_OR_RETURN(service->store, FdStore::Create(spec.fd_store_max, first_stored_fd));
  for (const auto& [name, fd] : spec.stored_fds) {
    UniqueFd copy(fcntl(fd, F_DUPFD_CLOEXEC, first_stored_fd));
    if (service->store->Add(std::move(copy), name, /*poll=*/false) !=
        FdStore::AddOutcome::kStored) {
      return Status(EINVAL, "service " + spec.name + ": descriptor '" + name + "' can't be stored");
    }
  }
  LaunchSpec launch{.argv = spec.argv,
                    .notify_socket = service->socket->path(),
                    .log_path = spec.log_path,
                    .pid_path = spec.pid_path,
                    .watchdog = spec.watchdog,
                    .fds_max = spec.fd_store_max,
                    .brings = spec.brings};
  ASSIGN_OR_RETURN(service->launcher, ChildLauncher::Create(launch));
  if (spec.keep_spare) {
    ASSIGN_OR_RETURN(service->spare, Spare::Create(launch, first_stored_fd, options_.restart));
  }
  UniqueFd log(open(spec.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (!log.valid()) return Status::FromErrno(errno, "open the log file " + spec.log_path);
  return Status();
}

int Supervisor::Run() {
  for (Service& service : services_) Start(&service);
  for (;;) {
    if (std::exchange(changed_, false)) WriteStatus();
    if (stopping_ && AllStopped()) break;
    Wait();
    ReadSignals();
    for (Service& service : services_) {
      // Before deadlines are looked at: a ping that waits here came in time.
      ReadNotifications(&service);
      if (service.store->DropHungUp() > 0) changed_ = true;
      if (service.spare != nullptr && service.spare->OnInput()) changed_ = true;
    }
    if (std::exchange(child_exited_, false)) Reap();
    if (stopping_) StopNext();
    for (Service& service : services_) {
      if (service.deadline <= MonotonicNow()) OnDeadline(&service);
      if (service.spare == nullptr || service.spare->deadline() > MonotonicNow()) continue;
      service.spare->OnDeadline();
      changed_ = true;
    }
  }
  for (Service& service : services_) service.store->Clear();
  WriteStatus();
  return 0;
}

void Supervisor::Wait() {
  std::array<pollfd, 1 + 3 * kServicesMax> fds;
  size_t count = 0;
  fds[count++] = {signals_.get(), POLLIN, 0};
  Duration deadline = kNever;
  for (const Service& service : services_) {
    fds[count++] = {service.socket->fd(), POLLIN, 0};
    fds[count++] = {service.store->poll_fd(), POLLIN, 0};
    deadline = std::min(deadline, service.deadline);
    if (service.spare == nullptr) continue;
    fds[count++] = {service.spare->poll_fd(), POLLIN, 0};
    deadline = std::min(deadline, service.spare->deadline());
  }
  timespec limit{};
  if (deadline != kNever) {
    Duration left = std::max(deadline - MonotonicNow(), Duration::zero());
    auto seconds = std::chrono::duration_cast<std::chrono::seconds>(left);
    limit = {.tv_sec = seconds.count(), .tv_nsec = (left - seconds).count()};
  }
  ppoll(fds.data(), count, deadline == kNever ? nullptr : &limit, nullptr);
}

void Supervisor::ReadSignals() {
  signalfd_siginfo signal;
  while (read(signals_.get(), &signal, sizeof(signal)) == sizeof(signal)) {
    if (signal.ssi_signo == SIGCHLD) child_exited_ = true;
    if (signal.ssi_signo != SIGTERM && signal.ssi_signo != SIGINT) continue;
    if (std::exchange(stopping_, true)) continue;
    changed_ = true;
    Say("stopping");
    for (Service& service : services_) {
      if (service.spare != nullptr) service.spare->Discard();
    }
  }
}

void Supervisor::ReadNotifications(Service* service) {
  for (int i = 0; i < kDatagramsPerTurn && service->socket->Receive(&received_); ++i) {
    auto message = ParseNotifyMessage(received_.text());
    // A user's other processes do not speak for the service.
    const bool is_its_own = received_.is_root || received_.sender == service->pid;
    if (received_.trusted && is_its_own && message) Obey(service, *message);
    // What wasn't stored is closed here; a barrier's sender waits for just that.
    received_.CloseFds();
  }
}

void Supervisor::Obey(Service* service, const NotifyMessage& message) {
  if (message.fd_store_remove && message.fd_name) {
    if (service->store->Remove(*message.fd_name) > 0) changed_ = true;
  }
  if (message.fd_store) StoreFds(service, message);
  if (message.status && *message.status != service->status.view()) {
    service->status.Assign(*message.status);
    changed_ = true;
  }
  if (service->state == State::kTakingOver) {
    EnterServing(service, service->spec->required_ready ? State::kStarting : State::kReady);
  }
  bool serving = service->state == State::kStarting || service->state == State::kReady;
  if (!serving) return;  // The rest is about a life that is over or ending.

  if (message.watchdog_usec) {
    // More than a year is systemd's way to write "never".
    constexpr uint64_t kUsecMax = 366ULL * 24 * 3600 * 1'000'000;
    bool off = *message.watchdog_usec > kUsecMax;
    service->watchdog = std::chrono::microseconds(off ? 0 : *message.watchdog_usec);
  }
  if (message.stopping) {
    Enter(service, State::kStopping, options_.stop_grace);
  } else if (message.watchdog_trigger) {
    Abort(service, "asked for by WATCHDOG=trigger: ");
  } else if (message.ready && service->state == State::kStarting) {
    service->was_ready = true;
    EnterServing(service, State::kReady);
  } else if (message.watchdog_ping || message.watchdog_usec) {
    service->deadline = DeadlineIn(QuietLimit(*service, service->state));
  }
}

void Supervisor::StoreFds(Service* service, const NotifyMessage& message) {
  std::string_view name = message.fd_name.value_or(kDefaultFdName);
  for (size_t i = 0; i < received_.fd_count; ++i) {
    auto outcome = service->store->Add(std::move(received_.fds[i]), name, message.fd_poll);
    if (outcome == FdStore::AddOutcome::kStored) changed_ = true;
    if (outcome == FdStore::AddOutcome::kFull || outcome == FdStore::AddOutcome::kFailed) {
      Say("%s: descriptor '%.*s' refused: the store holds %zu of %zu", service->spec->name.c_str(),
          static_cast<int>(name.size()), name.data(), service->store->size(),
          service->store->capacity());
    }
  }
}

void Supervisor::Reap() {
  int wait_status = 0;
  for (pid_t pid; (pid = waitpid(-1, &wait_status, WNOHANG)) > 0;) {
    for (Service& service : services_) {
      if (service.pid == pid) OnExit(&service, wait_status);
      if (service.spare != nullptr && service.spare->OnExit(pid)) changed_ = true;
    }
  }
}

void Supervisor::Start(Service* service) {
  service->status.Assign("");
  service->fault = "";
  service->was_ready = false;
  service->retry_at_ms = 0;
  service->watchdog = service->spec->watchdog;
  service->started_at = MonotonicNow();
  if (StartFromSpare(service)) return;
  pid_t pid = service->launcher->Start(*service->store);
  if (pid < 0) {
    char text[kLastExitBytesMax];
    snprintf(text, sizeof(text), "could not be started: %s", strerrordesc_np(-pid));
    service->last_exit.Assign(text);
    RetryLater(service, service->backoff->DelayAfter(Duration::zero()));
    return;
  }
  service->pid = pid;
  EnterServing(service, service->spec->required_ready ? State::kStarting : State::kReady);
}

bool Supervisor::StartFromSpare(Service* service) {
  const pid_t pid = service->spare != nullptr ? service->spare->Fit() : 0;
  if (pid == 0) return false;
  // First, so that there is no moment in which the next supervisor could not find it.
  service->launcher->WritePidFile(pid);
  if (!service->spare->HandOver(*service->store)) return false;
  service->pid = pid;
  Enter(service, State::kTakingOver, options_.spare_patience);
  return true;
}

void Supervisor::OnExit(Service* service, int wait_status) {
  ReadNotifications(service);  // What it said before it died belongs to the life that ends here.
  char text[kLastExitBytesMax];
  if (WIFSIGNALED(wait_status)) {
    const char* name = sigabbrev_np(WTERMSIG(wait_status));
    snprintf(text, sizeof(text), "%skilled by signal %d (SIG%s)", service->fault,
             WTERMSIG(wait_status), name != nullptr ? name : "?");
  } else if (service->launcher->exec_error() != 0) {
    snprintf(text, sizeof(text), "could not be started: %s",
             strerrordesc_np(service->launcher->exec_error()));
  } else {
    snprintf(text, sizeof(text), "%sexited with code %d", service->fault, WEXITSTATUS(wait_status));
  }
  service->last_exit.Assign(text);
  Say("%s (pid %d) %s", service->spec->name.c_str(), service->pid, text);
  service->pid = 0;
  unlink(service->spec->pid_path.c_str());
  if (stopping_) {
    Enter(service, State::kStopped, kNever);
    return;
  }
  // One that ended as it was told to may have been told so for the sake of the program on disk.
  const bool ended = WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0;
  if (service->spare != nullptr && ended) service->spare->Discard();
  ++service->restarts;
  // One that never got ready is no better for having tried for long.
  const bool served = !service->spec->required_ready || service->was_ready;
  const Duration lived = served ? MonotonicNow() - service->started_at : Duration::zero();
  Duration delay = service->backoff->DelayAfter(lived);
  if (delay == Duration::zero()) {
    Start(service);
  } else {
    RetryLater(service, delay);
  }
}

void Supervisor::RetryLater(Service* service, Duration delay) {
  Enter(service, State::kWaiting, delay);
  auto delay_ms = std::chrono::duration_cast<std::chrono::milliseconds>(delay);
  service->retry_at_ms = service->since_ms + delay_ms.count();
}

void Supervisor::OnDeadline(Service* service) {
  switch (service->state) {
    case State::kWaiting:
      Start(service);
      return;
    case State::kTakingOver:
      service->fault = "spare did not take over in time: ";
      kill(service->pid, SIGKILL);
      Enter(service, State::kKilled, kNever);
      return;
    case State::kStarting:
      Abort(service, "not ready in time: ");
      return;
    case State::kReady:
      Abort(service, "watchdog: ");
      return;
    case State::kStopping:
      service->fault = "did not stop in time: ";
      [[fallthrough]];
    case State::kAborting:
      kill(service->pid, SIGKILL);
      Enter(service, State::kKilled, kNever);
      return;
    case State::kKilled:
    case State::kStopped:
      return;
  }
}

void Supervisor::Abort(Service* service, const char* fault) {
  service->fault = fault;
  kill(service->pid, SIGABRT);
  Enter(service, State::kAborting, options_.abort_grace);
}

// One service at a time, the last one first: each may count on those before it until its end.
void Supervisor::StopNext() {
  for (size_t i = services_.size(); i-- > 0;) {
    Service& service = services_[i];
    if (service.state == State::kStopped) continue;
    if (service.pid == 0) {
      service.retry_at_ms = 0;
      Enter(&service, State::kStopped, kNever);
      continue;
    }
    if (std::exchange(service.term_sent, true)) return;
    kill(service.pid, SIGTERM);
    kill(service.pid, SIGCONT);  // A stopped process would keep the SIGTERM for later.
    bool ending = service.state == State::kAborting || service.state == State::kKilled;
    if (!ending) Enter(&service, State::kStopping, options_.stop_grace);
    return;
  }
}

bool Supervisor::AllStopped() const {
  return std::all_of(services_.begin(), services_.end(), [](const Service& service) {
    const bool spare_runs = service.spare != nullptr && service.spare->pid() != 0;
    return service.state == State::kStopped && !spare_runs;
  });
}

void Supervisor::WriteStatus() {
  bool stopped = stopping_ && AllStopped();
  status_.Begin(getpid(), stopped ? "stopped" : stopping_ ? "stopping" : "running", since_ms_);
  for (const Service& service : services_) {
    status_.Service({.name = service.spec->name,
                     .pid = service.pid,
                     .spare = service.spare != nullptr ? service.spare->warm_pid() : 0,
                     .state = StateName(service.state),
                     .since_ms = service.since_ms,
                     .restarts = service.restarts,
                     .retry_at_ms = service.retry_at_ms,
                     .last_exit = service.last_exit.view(),
                     .status = service.status.view(),
                     .fd_store = service.store.get()});
  }
  bool failed = !status_.Write();
  if (failed && !status_failed_) {
    Say("cannot write %s: %s", options_.status_path.c_str(), strerrordesc_np(errno));
  }
  status_failed_ = failed;
}

void Supervisor::Enter(Service* service, State state, Duration time_to_deadline) {
  service->state = state;
  service->deadline = DeadlineIn(time_to_deadline);
  service->since_ms = WallMs();
  changed_ = true;
}

void Supervisor::EnterServing(Service* service, State state) {
  Enter(service, state, QuietLimit(*service, state));
  if (state == State::kReady && service->spare != nullptr && !stopping_) {
    service->spare->WantAt(MonotonicNow() + options_.spare_delay);
  }
}

// How long a running service may say nothing.
Duration Supervisor::QuietLimit(const Service& service, State state) const {
  Duration limit = state == State::kStarting ? Duration(options_.ready_timeout) : service.watchdog;
  return limit == Duration::zero() ? kNever : limit;
}

}  // namespace

Result<int> RunSupervisor(const SupervisorOptions& options) {
  auto supervisor = std::make_unique<Supervisor>(options);
  RETURN_IF_ERROR(supervisor->Prepare());
  return supervisor->Run();
}

}  // namespace cli
