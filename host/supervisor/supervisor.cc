#include "host/supervisor/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>
#include <utility>
#include <vector>

#include "cachecore/base/json_fields.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/system/files.h"
#include "host/notify/notify_socket.h"
#include "host/notify/orphan.h"
#include "host/supervisor/child_process.h"
#include "host/supervisor/log_file.h"
#include "host/supervisor/standby.h"
#include "host/supervisor/supervise_fields.h"
#include "host/supervisor/supervise_status.h"
#include "host/supervisor/supervise_text.h"
#include "host/supervisor/supervise_time.h"
#include "host/supervisor/supervised_service.h"
#include "host/supervisor/supervisor_setup.h"

namespace host {
namespace {

using cachecore::Duration;
using cachecore::JsonField;
using cachecore::JsonInt;
using cachecore::JsonString;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
using nlohmann::json;

constexpr std::chrono::seconds kTryStatusAgainAfter(1);

// The most datagrams of a service in one turn of the loop: a flood delays no other service.
constexpr int kDatagramsPerTurn = 1024;

uint64_t Number(const json& object, const char* key) {
  return static_cast<uint64_t>(std::max<int64_t>(JsonInt(object, key), 0));
}

ServiceTotals TotalsOf(const json& service) {
  ServiceTotals totals;
  const json& ends = JsonField(service, supervise_field::kEnds);
  for (size_t i = 0; i < totals.ends.size(); ++i) totals.ends[i] = Number(ends, kEndReasonNames[i]);
  const json& pauses = JsonField(service, supervise_field::kPauses);
  if (!pauses.is_array() || pauses.size() != totals.pauses.size()) return totals;
  for (size_t i = 0; i < totals.pauses.size(); ++i) {
    if (pauses[i].is_number_unsigned()) totals.pauses[i] = pauses[i].get<uint64_t>();
  }
  totals.pauses_us = Number(service, supervise_field::kPausesUs);
  return totals;
}

class Supervisor {
 public:
  explicit Supervisor(const SupervisorOptions& options)
      : options_(options),
        status_(options.status_path, options.services.size(), StoredFdsMax(options)) {}

  Status Prepare();
  int Run();

 private:
  static size_t StoredFdsMax(const SupervisorOptions& options);

  Status GoOnWithOrphans();
  void Turn();
  void Wait();
  void ReadSignals();
  void ReopenLogs();
  // False in a standby that has taken over.
  bool ReadNotifications(SupervisedService* service);
  bool ReadAllNotifications();
  void Reap();
  bool RenewStandby();
  void Exchange();
  void RefuseExchange(const Status& why);
  bool NoteChanges();
  void StopNext();
  bool AllStopped() const;
  const char* WhyNoStandby() const;
  void WriteStatus();
  void GoOnWithTotals();
  void LeaveTotals() const;

  const SupervisorOptions& options_;
  SuperviseStatus status_;
  UniqueFd lock_;
  UniqueFd signals_;
  std::vector<std::unique_ptr<SupervisedService>> services_;
  std::unique_ptr<Standby> standby_;  // Null: there is none.
  NotifyDatagram received_;           // Too large for a stack, and empty between two datagrams.
  int64_t since_ms_ = WallMs();
  uint64_t takeovers_ = 0;
  uint64_t takeovers_before_ = 0;
  uint64_t exchanges_refused_ = 0;
  FixedText<kStatusTextBytesMax> why_not_exchanged_;
  bool stopping_ = false;
  bool exchange_asked_ = false;
  bool child_exited_ = true;    // Of the program before this one, perhaps.
  bool changed_ = true;         // Since the status was written ...
  bool standby_is_old_ = true;  // ... and since the standby was made.
  bool status_failed_ = false;
  Duration status_retry_at_ = kNever;
  std::string oom_score_;  // Before it was hardened.
  LogFiles logs_;
  bool writes_log_ = false;  // Our standard error is options_.log_path.
};

size_t Supervisor::StoredFdsMax(const SupervisorOptions& options) {
  size_t sum = 0;
  for (const ServiceSpec& spec : options.services) sum += spec.fd_store_max;
  return sum;
}

Status Supervisor::Prepare() {
  RETURN_IF_ERROR(CheckSupervisorOptions(options_));
  ASSIGN_OR_RETURN(lock_, LockRunDir(options_.run_dir));
  RETURN_IF_ERROR(MakeNotifyDirectory(options_.run_dir));
  ASSIGN_OR_RETURN(signals_, BlockSignals());

  size_t store_max = 0;
  for (const ServiceSpec& spec : options_.services) {
    store_max = std::max(store_max, spec.fd_store_max);
  }
  for (const ServiceSpec& spec : options_.services) {
    auto made = SupervisedService::Create(options_, spec, 3 + static_cast<int>(store_max));
    if (!made.ok()) return Status(made.status()).WithContext("service " + spec.name);
    logs_.Add(spec.log_path, options_.log_bytes_max);
    services_.push_back(std::move(made).value());
  }
  RETURN_IF_ERROR(GoOnWithOrphans());
  GoOnWithTotals();
  if (options_.keep_standby) {
    ASSIGN_OR_RETURN(standby_, Standby::Create(options_.restart, options_.standby));
  }
  logs_.Add(options_.log_path, options_.log_bytes_max);
  writes_log_ = IsStandardError(options_.log_path);
  oom_score_ = ReadOomScore();
  HardenProcess();
  return Status();
}

// A process whose end only costs time is ended where the supervisor cannot go on with it: what it
// did must not keep the supervisor from the others.  Options that differ are the caller's to mend.
// Nothing is ended before it is known that the supervisor goes on: nobody else would start it again.
Status Supervisor::GoOnWithOrphans() {
  std::vector<Status> refusals(services_.size());
  for (size_t i = 0; i < services_.size(); ++i) {
    refusals[i] = services_[i]->AdoptOrphan().status();
    if (refusals[i].ok()) continue;
    const bool is_required = options_.services[i].required_ready;
    if (is_required || refusals[i].error() == EBUSY) return refusals[i];
  }
  for (size_t i = services_.size(); i-- > 0;) {
    if (services_[i]->is_running()) continue;
    const ServiceSpec& spec = options_.services[i];
    if (!refusals[i].ok()) {
      Say("%s is started again: %s", spec.name.c_str(), refusals[i].message().c_str());
    }
    ASSIGN_OR_RETURN(const pid_t ended, EndStaleProcess(spec.pid_path, services_[i]->program(),
                                                        spec.argv, options_.stop_grace));
    if (ended > 0) Say("ended %s of an earlier supervisor (pid %d)", spec.name.c_str(), ended);
  }
  return Status();
}

// With those of the last supervisor: of its status file where it was killed.
void Supervisor::GoOnWithTotals() {
  Result<json> last = cachecore::ReadJsonFile(options_.status_path);
  if (!last.ok()) last = cachecore::ReadJsonFile(options_.totals_path);
  if (!last.ok()) return;
  takeovers_before_ =
      Number(*last, supervise_field::kTakeovers) + Number(*last, supervise_field::kTakeoversBefore);
  for (const json& told : JsonField(*last, supervise_field::kServices)) {
    for (size_t i = 0; i < services_.size(); ++i) {
      if (JsonString(told, supervise_field::kName) != options_.services[i].name) continue;
      services_[i]->GoOnWith(TotalsOf(told));
    }
  }
}

void Supervisor::LeaveTotals() const {
  if (options_.totals_path.empty()) return;
  const Result<std::string> text = cachecore::ReadFile(options_.status_path);
  if (!text.ok()) return;
  const Status written = cachecore::WriteFileAtomically(options_.totals_path, *text, 0600);
  if (!written.ok()) Say("the counts of deaths are lost: %s", written.message().c_str());
}

int Supervisor::Run() {
  if (options_.on_start) options_.on_start();
  for (auto& service : services_) {
    if (!service->is_running()) service->Start();
  }
  for (;;) {
    if (NoteChanges() && RenewStandby()) continue;
    if (std::exchange(changed_, false) || status_retry_at_ <= MonotonicNow()) WriteStatus();
    logs_.Limit(MonotonicNow());
    if (stopping_ && AllStopped()) break;
    Wait();
    Turn();
  }
  for (auto& service : services_) service->Forget();
  WriteStatus();
  LeaveTotals();
  status_.RemoveTemporary();
  return 0;
}

void Supervisor::Turn() {
  ReadSignals();
  // Ends are noted first: what a process said before its end belongs to the life that ends.
  if (std::exchange(child_exited_, false)) Reap();
  for (auto& service : services_) service->LookForEnd();
  // Before deadlines are looked at: a ping that waits here came in time.
  if (!ReadAllNotifications()) return;
  for (auto& service : services_) {
    service->OnInput();
    service->OnEnd();
  }
  if (stopping_) StopNext();
  for (auto& service : services_) service->OnDeadline();
  if (std::exchange(exchange_asked_, false) && !stopping_ && options_.on_exchange) Exchange();
}

void Supervisor::Wait() {
  std::array<pollfd, 1 + SupervisedService::kPollFds * kServicesMax> fds;
  size_t count = 0;
  fds[count++] = {signals_.get(), POLLIN, 0};
  Duration deadline = status_retry_at_;
  if (standby_ != nullptr) deadline = std::min(deadline, standby_->deadline());
  for (const auto& service : services_) {
    for (const int fd : service->poll_fds()) fds[count++] = {fd, POLLIN, 0};
    deadline = std::min(deadline, service->deadline());
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
    if (signal.ssi_signo == SIGHUP) ReopenLogs();
    if (signal.ssi_signo == SIGUSR2) exchange_asked_ = true;
    if (signal.ssi_signo != SIGTERM && signal.ssi_signo != SIGINT) continue;
    if (std::exchange(stopping_, true)) continue;
    changed_ = true;
    Say("stopping, on signal %d (%s)", static_cast<int>(signal.ssi_signo),
        sigdescr_np(static_cast<int>(signal.ssi_signo)));
    if (options_.on_stop) options_.on_stop(static_cast<int>(signal.ssi_signo));
    if (standby_ != nullptr) standby_->Stop();
    for (auto& service : services_) service->BeginToStop();
  }
}

void Supervisor::ReopenLogs() {
  if (writes_log_) {
    const UniqueFd log(
        open(options_.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    if (log.valid()) {
      dup2(log.get(), STDOUT_FILENO);
      dup2(log.get(), STDERR_FILENO);
      standby_is_old_ = true;  // It has copies of the descriptors.
    } else {
      Say("cannot open %s again: %s", options_.log_path.c_str(), strerrordesc_np(errno));
    }
  }
  for (const auto& service : services_) service->ReopenLog();
}

bool Supervisor::ReadAllNotifications() {
  for (auto& service : services_) {
    if (!ReadNotifications(service.get())) return false;
  }
  return true;
}

bool Supervisor::ReadNotifications(SupervisedService* service) {
  for (int i = 0; i < kDatagramsPerTurn && service->ObeyMessage(&received_); ++i) {
    // The standby has what the message brought before its sender can know that it was taken.
    const bool renews = NoteChanges();
    if (renews && RenewStandby()) return false;
    service->DropMessage();
    if (renews) break;  // A service cannot have copies made without end: the others come first.
  }
  return true;
}

// Whether the standby is to be renewed.
bool Supervisor::NoteChanges() {
  for (auto& service : services_) {
    if (!service->TakeChanged()) continue;
    changed_ = true;
    standby_is_old_ = true;
  }
  if (standby_ == nullptr || stopping_) return false;
  return standby_is_old_ || standby_->deadline() <= MonotonicNow();
}

// True in the standby, once it has taken over.
bool Supervisor::RenewStandby() {
  standby_is_old_ = false;
  const pid_t supervisor = getpid();
  const bool has_taken_over = standby_->Renew();
  changed_ = true;
  if (!has_taken_over) return false;
  standby_is_old_ = true;
  ++takeovers_;
  since_ms_ = WallMs();
  Say("the supervisor (pid %d) has died; pid %d goes on in its place", supervisor, getpid());
  WriteLockHolder(lock_.get());
  HardenProcess();
  for (auto& service : services_) service->Adopt();
  return true;
}

// The services stay this process's children, and their descriptors stay open.  A hung-up connection is
// no loss, and is not passed on: what is polled its service has, too.
void Supervisor::Exchange() {
  std::vector<StoredBy> stored;
  for (const auto& service : services_) {
    // The new program would end with an error, or end the service: asked before anything is ended.
    if (const Status able = service->CheckAdoptable(); !able.ok()) return RefuseExchange(able);
    const StoredDescriptors& store = service->store();
    for (size_t i = 0; i < store.size(); ++i) {
      if (store.is_polled(i)) continue;
      stored.push_back({std::string(service->name()), std::string(store.name(i)), store.fd(i)});
    }
  }
  Say("exchanging its program");
  if (standby_ != nullptr) standby_->End();  // It would see an end of this one.
  RestoreOomScore(oom_score_);
  const Status failed = options_.on_exchange(stored);
  HardenProcess();
  standby_is_old_ = true;
  RefuseExchange(failed);
}

void Supervisor::RefuseExchange(const Status& why) {
  Say("does not exchange its program: %s", why.message().c_str());
  ++exchanges_refused_;
  why_not_exchanged_.Assign(why.message());
  changed_ = true;
}

void Supervisor::Reap() {
  int wait_status = 0;
  for (pid_t pid; (pid = waitpid(-1, &wait_status, WNOHANG)) > 0;) {
    if (standby_ != nullptr && standby_->OnExit(pid)) changed_ = true;
    for (auto& service : services_) service->NoteExit(pid, wait_status);
  }
}

// One service at a time, the last one first: each may count on those before it until its end.
void Supervisor::StopNext() {
  for (size_t i = services_.size(); i-- > 0;) {
    if (!services_[i]->Stop()) return;
  }
}

bool Supervisor::AllStopped() const {
  const bool standby_runs = standby_ != nullptr && standby_->pid() != 0;
  return !standby_runs && std::all_of(services_.begin(), services_.end(),
                                      [](const auto& service) { return service->is_stopped(); });
}

const char* Supervisor::WhyNoStandby() const {
  if (standby_ == nullptr) return options_.why_no_standby;
  if (standby_->pid() != 0) return "";
  return stopping_ ? "the supervisor stops"
                   : "it has ended or could not be made; it is tried again";
}

void Supervisor::WriteStatus() {
  bool stopped = stopping_ && AllStopped();
  status_.Begin({.pid = getpid(),
                 .standby = standby_ != nullptr ? standby_->pid() : 0,
                 .why_no_standby = WhyNoStandby(),
                 .takeovers = takeovers_,
                 .takeovers_before = takeovers_before_,
                 .exchanges_refused = exchanges_refused_,
                 .why_not_exchanged = why_not_exchanged_.view(),
                 .state = stopped     ? "stopped"
                          : stopping_ ? "stopping"
                                      : "running",
                 .since_ms = since_ms_});
  for (const auto& service : services_) status_.Service(service->Describe());
  bool failed = !status_.Write();
  status_retry_at_ = failed ? DeadlineIn(kTryStatusAgainAfter) : kNever;
  if (failed && !status_failed_) {
    Say("cannot write %s: %s", options_.status_path.c_str(), strerrordesc_np(errno));
  }
  status_failed_ = failed;
}

}  // namespace

Result<int> RunSupervisor(const SupervisorOptions& options) {
  auto supervisor = std::make_unique<Supervisor>(options);
  RETURN_IF_ERROR(supervisor->Prepare());
  return supervisor->Run();
}

}  // namespace host
