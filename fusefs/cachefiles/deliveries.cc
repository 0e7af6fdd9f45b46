#include "fusefs/cachefiles/deliveries.h"

#include <glog/logging.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <utility>

#include "cachecore/system/pid_stamp.h"
#include "fusefs/cachefiles/preload/device_calls.h"
#include "fusefs/inject/proc_files.h"

namespace fusefs {

using cachecore::Clock;
using cachecore::Duration;
using cachecore::Result;
using cachecore::Status;

namespace {

constexpr Duration kPatience = std::chrono::seconds(5);  // With holdfast-injectd.
constexpr Duration kPatienceWithThread = std::chrono::seconds(1);
constexpr Duration kLogAgain = std::chrono::seconds(10);
constexpr int kLookAgainMs = 5;
constexpr int kLookAtDeadlinesMs = 1000;

// Whether the id of a message is an address that the thread can read.
bool HasWindow(pid_t thread, uint64_t id) {
  uint32_t bytes = 0;
  const iovec here = {&bytes, sizeof(bytes)};
  const iovec there = {reinterpret_cast<void*>(id), sizeof(bytes)};
  return process_vm_readv(thread, &here, 1, &there, 1, 0) == sizeof(bytes);
}

// A limit of holdfastd's own is told as such.
Status CannotInject(const Status& sent) {
  if (sent.error() == EMFILE || sent.error() == ENFILE) {
    return Status(sent.error(), sent.message() + "; raise the limit of open files of holdfastd");
  }
  if (sent.error() == ENOMEM || sent.error() == EAGAIN) return sent;
  return Status(EOPNOTSUPP,
                sent.message() + "; a dynamic program can be started with holdfast cachefiles-run");
}

enum class Place { kInjectedCode, kElsewhere, kUnknown };

// Where a thread is.  The injected code lies in the pages of the vdso.
Place PlaceOf(pid_t thread) {
  // A holdfast-injectd that dies with its holdfastd may set the registers of a thread until it has
  // let it run.
  if (TracerOf(thread) != 0) return Place::kUnknown;
  std::ifstream file(ProcPath(thread, "syscall"));
  std::string last;
  for (std::string word; file >> word;) last = word;
  if (last == "running") return Place::kUnknown;
  uint64_t at = 0;
  if (std::sscanf(last.c_str(), "%lx", &at) != 1) return Place::kElsewhere;  // It has ended.
  const std::optional<MemoryRange> vdso = FindVdso(thread);
  return vdso && vdso->begin <= at && at < vdso->end ? Place::kInjectedCode : Place::kElsewhere;
}

// Numbers recur, and this tells their owners apart; 0 once it is gone.
uint64_t StartOf(pid_t pid) { return cachecore::ProcessStart(pid).value_or(0); }

std::string NameOf(pid_t thread) {
  std::ifstream file(ProcPath(thread, "comm"));
  std::string name;
  std::getline(file, name);
  return "thread " + std::to_string(thread) + " (" + name + ")";
}

}  // namespace

Deliveries::~Deliveries() {
  for (auto& [serial, delivery] : deliveries_) Answer(&delivery);
}

void Deliveries::Answer(Delivery* delivery) {
  fuse_req_t req = std::exchange(delivery->req, nullptr);
  if (req == nullptr) return;
  if (delivery->written) {
    fuse_reply_write(req, *delivery->written);
  } else {
    fuse_reply_buf(req, nullptr, 0);
  }
}

void Deliveries::Interrupt(fuse_req_t, void* delivery) {
  static_cast<Delivery*>(delivery)->is_interrupted = true;  // For Tend: libfuse holds a lock now.
}

// A message of a thread, or, 0, one that waits for a read.
void Deliveries::Keep(const DeviceMessage& message, pid_t thread) {
  MessageRecord record;
  record.msg_id = message.msg_id.value;
  record.object = message.object.value;
  record.kind = static_cast<uint32_t>(message.kind);
  record.thread = thread;
  memory_->PutMessage(record, message.bytes);
}

void Deliveries::Resume() {
  for (auto& [record, bytes] : memory_->messages()) {
    Delivery& delivery = deliveries_[++last_serial_];
    delivery.thread = record.thread;
    delivery.message = {static_cast<DeviceMessage::Kind>(record.kind),
                        std::move(bytes),
                        {record.msg_id},
                        {record.object}};
    delivery.began = Clock::Monotonic().Now();
    delivery.is_lost = true;
  }
}

bool Deliveries::HasWaiting() {
  std::erase_if(waiting_, [this](const DeviceMessage& message) {
    if (device_->IsUnanswered(message)) return false;
    memory_->EraseMessage(message.msg_id);
    return true;
  });
  return !waiting_.empty();
}

Result<DeviceMessage> Deliveries::NextWithLibrary(pid_t thread, size_t room) {
  Result<DeviceMessage> message = Next(thread, room);
  if (message.ok() && message->kind != DeviceMessage::Kind::kText) gives_addresses_ = false;
  return message;
}

Result<DeviceMessage> Deliveries::Next(pid_t thread, size_t room) {
  if (!HasWaiting()) return device_->Read(thread, room);
  if (waiting_.front().bytes.size() > room) return Status(EMSGSIZE, "the message is longer");
  DeviceMessage message = std::move(waiting_.front());
  waiting_.pop_front();
  memory_->EraseMessage(message.msg_id);
  device_->SetReader(message, thread);
  return message;
}

void Deliveries::Read(fuse_req_t req, size_t room) {
  const pid_t thread = fuse_req_ctx(req)->pid;
  Result<DeviceMessage> message = Next(thread, room);
  if (!message.ok()) {
    fuse_reply_err(req, message.status().error());
    return;
  }
  std::string& bytes = message->bytes;
  if (message->kind == DeviceMessage::Kind::kText) {
    fuse_reply_buf(req, bytes.data(), bytes.size());
    return;
  }
  const bool is_exact = exact_ids_.AreFor(thread);
  gives_addresses_ = !is_exact;
  const uint32_t id = is_exact
                          ? message->msg_id.value
                          : static_cast<uint32_t>(CachefilesDevice::AddressOf(message->msg_id));
  std::memcpy(bytes.data(), &id, sizeof(id));
  const bool needs_thread =
      message->kind == DeviceMessage::Kind::kOpen ||
      (message->kind == DeviceMessage::Kind::kRead && !is_exact && !HasWindow(thread, id));
  if (needs_thread) {
    Begin(req, thread, *std::move(message));
  } else {
    fuse_reply_buf(req, bytes.data(), bytes.size());
  }
}

void Deliveries::Begin(fuse_req_t req, pid_t thread, DeviceMessage message) {
  const uint64_t serial = ++last_serial_;
  // After a `restore` the thread that was given it first counts no more.
  std::erase_if(deliveries_, [&message](const auto& entry) {
    return entry.second.is_started && !entry.second.written &&
           entry.second.message.msg_id == message.msg_id;
  });
  Delivery& delivery = deliveries_[serial];
  delivery = {req, thread, std::move(message), Clock::Monotonic().Now()};
  if (thread == 0) {
    Refuse(&delivery, Status(EPERM, "it is in a PID namespace that holdfastd does not see"));
    deliveries_.erase(serial);
    return;
  }
  InjectionJob job = JobFor(thread);
  job.msg_id = delivery.message.msg_id.value;
  job.length = static_cast<uint32_t>(delivery.message.bytes.size());
  if (delivery.message.kind == DeviceMessage::Kind::kOpen) {
    job.node = kObjectNode | delivery.message.object.value;
  }
  delivery.message.bytes.copy(job.message, sizeof(job.message));
  // The thread may have it from now on.
  Keep(delivery.message, thread);
  device_->Keep();
  memory_->Commit();
  const Status sent = injector_.Send(job);
  if (!sent.ok()) {
    Refuse(&delivery, CannotInject(sent));
    deliveries_.erase(serial);
    return;
  }
  fuse_req_interrupt_func(req, Interrupt, &delivery);
}

// REQUIRES: it is for the delivery that was begun last.
InjectionJob Deliveries::JobFor(pid_t thread) const {
  InjectionJob job;
  job.serial = last_serial_;
  job.device = mounted_;
  job.thread = thread;
  return job;
}

bool Deliveries::NeedsWindow(pid_t thread) {
  constexpr int kTries = 3;
  constexpr size_t kMaxProcesses = 64;
  if (!gives_addresses_ || thread == 0 || HasWindow(thread, kIdWindow)) return false;
  const uint64_t started = StartOf(thread);
  const bool is_begun = std::ranges::any_of(deliveries_, [thread, started](const auto& entry) {
    return entry.second.written && entry.second.thread == thread &&
           entry.second.thread_started == started;
  });
  if (is_begun || exact_ids_.AreFor(thread)) return false;
  if (without_window_.size() >= kMaxProcesses) without_window_.clear();
  const pid_t process = ProcessOf(thread);
  return ++without_window_[{process, StartOf(process)}] <= kTries;
}

// The daemon that is asked again after the death of this one takes the bytes once more.
void Deliveries::AnswerWrite(fuse_req_t req, size_t written) {
  const pid_t thread = fuse_req_ctx(req)->pid;
  if (!NeedsWindow(thread)) {
    fuse_reply_write(req, written);
    return;
  }
  Delivery& delivery = deliveries_[++last_serial_];
  delivery.req = req;
  delivery.thread = thread;
  delivery.thread_started = StartOf(thread);
  delivery.began = Clock::Monotonic().Now();
  delivery.written = written;
  const Status sent = injector_.Send(JobFor(thread));
  if (!sent.ok()) {
    Refuse(&delivery, CannotInject(sent));
    deliveries_.erase(last_serial_);
    return;
  }
  fuse_req_interrupt_func(req, Interrupt, &delivery);
}

void Deliveries::Log(const std::string& line) {
  const Duration now = Clock::Monotonic().Now();
  if (line == logged_ && now - logged_at_ < kLogAgain) return;
  device_->LogError(line);
  logged_ = line;
  logged_at_ = now;
}

// The read and its OPEN fail.  A READ stays to be read by another thread.
void Deliveries::Refuse(Delivery* delivery, const Status& cause) {
  if (delivery->written) {
    Log(NameOf(delivery->thread) +
        " has no memory where ids of messages are, so that its READ_COMPLETE gives EFAULT: " +
        cause.message());
    Answer(delivery);
    return;
  }
  const Status error(cause.error(),
                     NameOf(delivery->thread) +
                         " cannot be given a message of the cachefiles device: " + cause.message());
  Log(error.message());
  if (delivery->message.kind == DeviceMessage::Kind::kOpen) {
    device_->FailOpen(delivery->message.msg_id, error);
    memory_->EraseMessage(delivery->message.msg_id);
  } else {
    KeepWaiting(delivery);
  }
  if (delivery->req != nullptr)
    fuse_reply_err(std::exchange(delivery->req, nullptr), error.error());
}

void Deliveries::KeepWaiting(Delivery* delivery) {
  if (delivery->written) return;  // The next write tries again.
  if (delivery->message.kind == DeviceMessage::Kind::kOpen) {
    device_->SetReader(delivery->message, 0);
  }
  Keep(delivery->message, 0);
  waiting_.push_back(std::move(delivery->message));
  has_new_waiting_ = true;
}

void Deliveries::Finish(const InjectionReport& report) {
  const auto it = deliveries_.find(report.serial);
  if (it == deliveries_.end()) return;
  Delivery& delivery = it->second;
  if (report.end == InjectionEnd::kRefused) Refuse(&delivery, Status(report.error, report.cause));
  if (report.end == InjectionEnd::kMissed) KeepWaiting(&delivery);
  Answer(&delivery);
  if (report.end == InjectionEnd::kStarted) {
    delivery.is_started = true;
    delivery.began = Clock::Monotonic().Now();
  } else {
    deliveries_.erase(it);
  }
}

int Deliveries::Fail(uint32_t msg_id, pid_t thread, int error) {
  if (error <= 0 || error > CachefilesDevice::kLargestErrno) error = EIO;
  const auto it = std::ranges::find_if(deliveries_, [msg_id, thread](const auto& entry) {
    return entry.second.message.msg_id.value == msg_id && entry.second.thread == thread &&
           !entry.second.written;
  });
  if (it == deliveries_.end() || HasWindow(thread, kIdWindow)) {
    return device_->FailOpen(msg_id, error);
  }
  Refuse(&it->second,
         Status::FromErrno(error,
                           "it cannot map the 4 MiB at 0x60000000 that ids of messages need; "
                           "its limit of memory (ulimit -v) or its seccomp filter forbids "
                           "it, unless holdfast cachefiles-run starts it"));
  deliveries_.erase(it);
  return 0;
}

bool Deliveries::HasTaken(const Delivery& delivery) {
  const DeviceMessage& message = delivery.message;
  if (delivery.written) return HasWindow(delivery.thread, kIdWindow);
  return !device_->IsUnanswered(message) ||
         (message.kind == DeviceMessage::Kind::kRead &&
          HasWindow(delivery.thread, CachefilesDevice::AddressOf(message.msg_id)));
}

void Deliveries::Forget(const Delivery& delivery) {
  if (!delivery.written) memory_->EraseMessage(delivery.message.msg_id);
}

// A seccomp filter may forbid all that the code does, and the ioctl that says so, too.
bool Deliveries::SettleStarted(Delivery* delivery) {
  const bool is_gone = access(ProcPath(delivery->thread, "").c_str(), F_OK) != 0;
  if (is_gone || HasTaken(*delivery)) {
    Forget(*delivery);
    return true;
  }
  if (Clock::Monotonic().Now() - delivery->began < kPatienceWithThread ||
      PlaceOf(delivery->thread) != Place::kElsewhere) {
    return false;
  }
  Refuse(delivery, Status(EPERM,
                          "it does not get past mmap(2), open_by_handle_at(2) and ioctl(2), "
                          "which its seccomp filter must allow; holdfast cachefiles-run "
                          "starts a program that needs no mmap"));
  return true;
}

bool Deliveries::Settle(Delivery* delivery) {
  if (delivery->req != nullptr) {  // It has not left its call.
    Answer(delivery);
    KeepWaiting(delivery);
    return true;
  }
  if (HasTaken(*delivery)) {
    Forget(*delivery);
    return true;
  }
  const bool is_patient =
      Clock::Monotonic().Now() - delivery->began < kPatience + kPatienceWithThread;
  const Place place = PlaceOf(delivery->thread);
  if (place == Place::kInjectedCode || (place == Place::kUnknown && is_patient)) return false;
  // It may have got it since.
  if (HasTaken(*delivery)) {
    Forget(*delivery);
  } else {
    KeepWaiting(delivery);
  }
  return true;
}

bool Deliveries::Tend() {
  while (const std::optional<InjectionReport> report = injector_.Receive()) Finish(*report);
  const Duration now = Clock::Monotonic().Now();
  for (const auto& [serial, delivery] : deliveries_) {
    if (delivery.is_lost || delivery.is_started || now - delivery.began < kPatience) continue;
    LOG(ERROR) << "holdfast-injectd does not end with " << NameOf(delivery.thread);
    injector_.End();
    break;
  }
  const bool is_running = injector_.fd() >= 0;
  for (auto it = deliveries_.begin(); it != deliveries_.end();) {
    Delivery& delivery = it->second;
    if (delivery.is_interrupted) Answer(&delivery);
    delivery.is_lost |= !is_running && !delivery.is_started;
    const bool is_settled = (delivery.is_started && SettleStarted(&delivery)) ||
                            (delivery.is_lost && Settle(&delivery));
    it = is_settled ? deliveries_.erase(it) : std::next(it);
  }
  return std::exchange(has_new_waiting_, false);
}

int Deliveries::timeout_ms() const {
  if (deliveries_.empty()) return -1;
  for (const auto& [serial, delivery] : deliveries_) {
    if (delivery.is_lost) return kLookAgainMs;
  }
  return kLookAtDeadlinesMs;
}

}  // namespace fusefs
