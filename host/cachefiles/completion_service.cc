#include "host/cachefiles/completion_service.h"

#include <fcntl.h>
#include <poll.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <system_error>
#include <thread>

#include "fusefs/cachefiles/preload/device_calls.h"
#include "fusefs/inject/proc_files.h"
#include "host/cachefiles/private_device.h"

namespace host {

using cachecore::Status;
using cachecore::UniqueFd;

namespace {

// PIDFD_THREAD, of Linux 6.9.
constexpr unsigned kPidfdThread = O_EXCL;

struct Completion {
  uint64_t call = 0;
  int object = -1;
  uint32_t msg_id = 0;
};

UniqueFd OpenPid(pid_t pid, unsigned flags) {
  return UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid, flags)));
}

class Service {
 public:
  explicit Service(int listener) : listener_(listener) {}

  // First of all.
  Status Begin();
  // The next call.
  void Take();

 private:
  void Complete();
  bool IsObject(int fd) const;
  void Answer(seccomp_notif_resp* response, uint64_t call, int error, bool goes_on) const;

  const int listener_;
  uint32_t major_ = 0;
  uint32_t minor_ = 0;
  // Both ends of a pipe of Completions: one thread's, and the other's.
  int queue_ = -1;
  int taken_ = -1;
  // The first thread's.
  seccomp_notif* request_ = nullptr;
  seccomp_notif_resp* response_ = nullptr;
  // The second thread's.
  seccomp_notif* unused_ = nullptr;
  seccomp_notif_resp* completed_ = nullptr;
};

Status Service::Begin() {
  struct statx device;
  if (statx(AT_FDCWD, kCachefilesPath, AT_STATX_DONT_SYNC, 0, &device) != 0) {
    return Status::FromErrno(errno, kCachefilesPath);
  }
  major_ = device.stx_dev_major;
  minor_ = device.stx_dev_minor;
  std::array<int, 2> ends = {-1, -1};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) {
    return Status::FromErrno(errno, "making a pipe for the completions of --exact-ids");
  }
  taken_ = ends[0];
  queue_ = ends[1];
  if (seccomp_notify_alloc(&request_, &response_) != 0 ||
      seccomp_notify_alloc(&unused_, &completed_) != 0) {
    return Status(ENOMEM, "no memory for the completions of --exact-ids");
  }
  try {
    std::thread([this] { Complete(); }).detach();
  } catch (const std::system_error& error) {
    return Status(error.code().value(), "starting a thread for the completions of --exact-ids");
  }
  return Status();
}

void Service::Answer(seccomp_notif_resp* response, uint64_t call, int error, bool goes_on) const {
  response->id = call;
  response->val = 0;
  response->error = -error;
  response->flags = goes_on ? SECCOMP_USER_NOTIF_FLAG_CONTINUE : 0;
  // It fails when the caller was killed.
  (void)seccomp_notify_respond(listener_, response);
}

// Asks the kernel's own memory only, never the device's server.
bool Service::IsObject(int fd) const {
  struct statx info;
  return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &info) == 0 &&
         info.stx_dev_major == major_ && info.stx_dev_minor == minor_ &&
         info.stx_ino >> 32 == fusefs::kObjectInodes >> 32;
}

void Service::Take() {
  std::memset(request_, 0, sizeof(*request_));
  if (seccomp_notify_receive(listener_, request_) != 0) return;  // Its caller was killed.
  const seccomp_data& call = request_->data;
  UniqueFd fd = DescriptorOf(static_cast<pid_t>(request_->pid), static_cast<int>(call.args[0]));
  if (!fd.valid() || !IsObject(fd.get())) {
    Answer(response_, request_->id, 0, /*goes_on=*/true);
    return;
  }
  // Another thread may have got the number of one that was killed; its descriptor is let be.
  if (seccomp_notify_id_valid(listener_, request_->id) != 0) return;
  const Completion completion = {request_->id, fd.Release(), static_cast<uint32_t>(call.args[2])};
  if (write(queue_, &completion, sizeof(completion)) != sizeof(completion)) _exit(1);
}

void Service::Complete() {
  Completion next;
  while (read(taken_, &next, sizeof(next)) == sizeof(next)) {
    const int result = ioctl(next.object, fusefs::kReadComplete, &next.msg_id);
    const int error = result < 0 ? errno : 0;
    // First: the caller's own close of the object is to be the last one.
    close(next.object);
    Answer(completed_, next.call, error, /*goes_on=*/false);
  }
}

}  // namespace

UniqueFd DescriptorOf(pid_t thread, int fd) {
  UniqueFd pidfd = OpenPid(thread, kPidfdThread);
  // An earlier kernel: threads have the descriptors of their process, with rare exceptions.
  if (!pidfd.valid() && errno == EINVAL) pidfd = OpenPid(fusefs::ProcessOf(thread), 0);
  if (!pidfd.valid()) return UniqueFd();
  return UniqueFd(static_cast<int>(syscall(SYS_pidfd_getfd, pidfd.get(), fd, 0)));
}

Status ServeCompletions(int listener, const std::function<void()>& ready) {
  // Of a thread that is detached, until the process ends.
  static Service service(listener);
  RETURN_IF_ERROR(service.Begin());
  ready();
  pollfd stopped = {listener, POLLIN, 0};
  while (true) {
    if (poll(&stopped, 1, -1) < 0) continue;
    if ((stopped.revents & POLLIN) == 0) return Status();
    service.Take();
  }
}

}  // namespace host
