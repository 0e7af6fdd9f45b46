#include "fusefs/server/fuse_server.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <pthread.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <utility>

#include "cachecore/base/fault_point.h"
#include "fusefs/server/thread_slot.h"

namespace fusefs {

using cachecore::Status;

namespace {

// Interrupts a blocking read of /dev/fuse; its handler does nothing.
constexpr int kWakeSignal = SIGUSR2;

}  // namespace

FuseServer::FuseServer(FuseServerOptions options, const std::string& state_path,
                       std::unique_ptr<RequestLog> log, cachecore::Cache* cache,
                       const Grants* grants)
    : options_(options),
      log_(std::move(log)),
      connection_(state_path, log_.get(), options.may_resend),
      ops_(options.max_read, options.threads, options.totals, cache, grants) {}

FuseServer::~FuseServer() {
  Stop();
  if (session_ != nullptr) fuse_session_destroy(session_);  // Closes the descriptor.
}

Status FuseServer::OpenSession(cachecore::UniqueFd fd) {
  static char program[] = "holdfastd";
  char* argv[] = {program, nullptr};
  fuse_args args = FUSE_ARGS_INIT(1, argv);
  session_ = fuse_session_new(&args, &OperationCallbacks(), sizeof(fuse_lowlevel_ops), &callees_);
  fuse_opt_free_args(&args);
  if (session_ == nullptr) return Status(EINVAL, "libfuse refuses to make a session");
  const fuse_custom_io io = IoCallbacks();
  const int error = fuse_session_custom_io(session_, &io, fd.get());
  if (error != 0) return Status(-error, "libfuse refuses the /dev/fuse descriptor");
  fd.Release();  // The session's now.
  return Status();
}

Status FuseServer::CheckReplay() {
  cachecore::UniqueFd nowhere(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!nowhere.valid()) return Status::FromErrno(errno, "/dev/null");
  RETURN_IF_ERROR(OpenSession(std::move(nowhere)));
  if (!connection_.Replay()) return Status();
  RETURN_IF_ERROR(ReplayInit());
  if (fuse_session_exited(session_) != 0) return Status(EPROTO, "libfuse refuses the saved INIT");
  return connection_.CheckAnswer();
}

Status FuseServer::Start(cachecore::UniqueFd fd, bool resumed) {
  const int device = fd.get();
  RETURN_IF_ERROR(OpenSession(std::move(fd)));
  if (resumed && connection_.Replay()) RETURN_IF_ERROR(ReplayInit());

  struct sigaction action = {};
  action.sa_handler = [](int) {};  // No SA_RESTART: read() returns EINTR.
  sigaction(kWakeSignal, &action, nullptr);
  serving_ = options_.threads;
  // Before any thread reads: what we have read ourselves must not be sent to us twice.
  if (resumed) {
    const Status taken_over = connection_.TakeOver(device);
    LOG_IF(ERROR, !taken_over.ok())
        << "reads that the last daemon had taken are lost: " << taken_over.message();
    cachecore::FaultPoint(cachecore::Fault::kTakenOver);
  }
  for (int i = 0; i < options_.threads; ++i) {
    WorkMark* mark = &marks_.emplace_back();
    threads_.emplace_back([this, mark, area = log_->Area(i)] { Serve(mark, area); });
  }
  return Status();
}

Status FuseServer::ReplayInit() {
  fuse_buf buffer = {};
  buffer.mem = log_->Area(0);
  TakenRequest taken;
  const ThreadSlot<TakenRequest> slot(&taken);
  const int got = fuse_session_receive_buf(session_, &buffer);
  if (got <= 0) return Status(EPROTO, "libfuse does not take the saved INIT");
  fuse_session_process_buf(session_, &buffer);
  cachecore::FaultPoint(cachecore::Fault::kInitReplayed);
  return Status();
}

void FuseServer::Serve(WorkMark* mark, void* area) {
  fuse_buf buffer = {};
  TakenRequest taken;
  const ThreadSlot<TakenRequest> slot(&taken);
  while (!stopping_.load() && !fuse_session_exited(session_)) {
    buffer.mem = area;
    buffer.flags = static_cast<fuse_buf_flags>(0);
    const int got = fuse_session_receive_buf(session_, &buffer);
    if (got == -EINTR || got == -EAGAIN) continue;
    if (got <= 0) {
      if (got < 0) LOG(ERROR) << "reading /dev/fuse: " << strerror(-got);
      break;  // 0: the kernel has ended the connection.
    }
    cachecore::FaultPoint(cachecore::Fault::kRequestReceived);
    mark->Begin();
    fuse_session_process_buf(session_, &buffer);
    mark->End();
  }
  serving_.fetch_sub(1);
  serving_.notify_all();
}

void FuseServer::WaitForUnmount() {
  for (int left = serving_.load(); left > 0; left = serving_.load()) serving_.wait(left);
}

void FuseServer::Stop() {
  stopping_ = true;
  // A signal that comes just before a thread enters read() is lost on it, so it is sent until
  // heard.
  while (serving_.load() > 0) {
    for (std::thread& thread : threads_) pthread_kill(thread.native_handle(), kWakeSignal);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  ops_.Stop();
}

}  // namespace fusefs
