#include "fusefs/fuse_server.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <utility>

#include "cachecore/fault_point.h"
#include "fusefs/fuse_ops.h"

namespace fusefs {

using cachecore::Status;

thread_local uint64_t FuseServer::current_unique_ = 0;

namespace {

// Interrupts a blocking read of /dev/fuse; its handler does nothing.
constexpr int kWakeSignal = SIGUSR2;

}  // namespace

FuseServer::FuseServer(FuseServerOptions options, const std::string& state_path,
                       std::unique_ptr<RequestLog> log, cachecore::Cache* cache,
                       const Grants* grants)
    : options_(options),
      cache_(cache),
      grants_(grants),
      log_(std::move(log)),
      connection_(state_path, log_.get(), options.may_resend),
      interrupts_(cache),
      checkers_(options.threads) {}

FuseServer::~FuseServer() {
  Stop();
  if (session_ != nullptr) fuse_session_destroy(session_);  // Closes the descriptor.
}

// Member by member: libfuse 3.17 has one more than 3.14.
fuse_custom_io FuseServer::CustomIo() {
  fuse_custom_io io = {};
  io.writev = [](int device, iovec* iov, int count, void* server) {
    return static_cast<FuseServer*>(server)->connection_.Write(device, iov, count);
  };
  io.read = [](int device, void* buffer, size_t size, void* server) {
    return static_cast<FuseServer*>(server)->connection_.Read(device, buffer, size);
  };
  io.splice_send = [](int in, off_t* in_offset, int out, off_t* out_offset, size_t size,
                      unsigned flags, void* server) {
    return static_cast<FuseServer*>(server)->connection_.Splice(in, in_offset, out, out_offset,
                                                                size, flags);
  };
  return io;
}

Status FuseServer::OpenSession(cachecore::UniqueFd fd) {
  static char program[] = "holdfastd";
  char* argv[] = {program, nullptr};
  fuse_args args = FUSE_ARGS_INIT(1, argv);
  session_ = fuse_session_new(&args, &FuseOperations(), sizeof(fuse_lowlevel_ops), this);
  fuse_opt_free_args(&args);
  if (session_ == nullptr) return Status(EINVAL, "libfuse refuses to make a session");
  const fuse_custom_io io = CustomIo();
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
    const Status taken_up = connection_.TakeUp(device);
    LOG_IF(ERROR, !taken_up.ok()) << "reads that the last daemon had taken are lost: "
                                  << taken_up.message();
    cachecore::FaultPoint(cachecore::Fault::kTakenUp);
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
  const int got = fuse_session_receive_buf(session_, &buffer);
  if (got <= 0) return Status(EPROTO, "libfuse does not take the saved INIT");
  fuse_session_process_buf(session_, &buffer);
  cachecore::FaultPoint(cachecore::Fault::kInitReplayed);
  return Status();
}

void FuseServer::Serve(WorkMark* mark, void* area) {
  fuse_buf buffer = {};
  while (!stopping_.load() && !fuse_session_exited(session_)) {
    buffer.mem = area;
    buffer.flags = static_cast<fuse_buf_flags>(0);
    const int got = fuse_session_receive_buf(session_, &buffer);
    if (got == -EINTR || got == -EAGAIN) continue;
    if (got <= 0) {
      if (got < 0) LOG(ERROR) << "reading /dev/fuse: " << strerror(-got);
      break;  // 0: the kernel has ended the connection.
    }
    current_unique_ = static_cast<const fuse_in_header*>(area)->unique;
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
  checkers_.Stop();
  interrupts_.Stop();
}

}  // namespace fusefs
