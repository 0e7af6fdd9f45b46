#include "fusefs/cachefiles/cachefiles_server.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <linux/cachefiles.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "fusefs/cachefiles/preload/device_calls.h"
#include "fusefs/inject/proc_files.h"

namespace fusefs {

using cachecore::MutexLock;
using cachecore::ObjectId;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

namespace {

constexpr size_t kMaxWrite = 1 << 20;
// What libfuse may read before INIT has settled the size.
constexpr size_t kBufferBytes = kMaxWrite + (64 << 10);
constexpr off_t kBlock = 4096;
constexpr double kForEver = 1e9;  // Seconds: attributes do not change.
constexpr mode_t kFileMode = S_IFREG | 0666;

CachefilesServer& ServerOf(fuse_req_t req) {
  return *static_cast<CachefilesServer*>(fuse_req_userdata(req));
}
CachefilesDevice& DeviceOf(fuse_req_t req) { return ServerOf(req).device(); }
pid_t CallerOf(fuse_req_t req) { return fuse_req_ctx(req)->pid; }
bool IsDevice(fuse_ino_t node) { return node == FUSE_ROOT_ID; }
bool IsObject(fuse_ino_t node) { return node >> 32 == kObjectNode >> 32; }
ObjectId ObjectOf(fuse_ino_t node) { return {static_cast<uint32_t>(node)}; }

struct stat AttributesOf(fuse_ino_t node) {
  struct stat attr = {};
  attr.st_ino = IsDevice(node) ? kDeviceInode : kObjectInodes | ObjectOf(node).value;
  attr.st_mode = kFileMode;
  attr.st_nlink = 1;
  return attr;
}

// Of a result: 0 or more, or a negative errno.
void ReplyResult(fuse_req_t req, int64_t result) {
  if (result < 0) {
    fuse_reply_err(req, static_cast<int>(-result));
  } else {
    fuse_reply_write(req, static_cast<size_t>(result));
  }
}

void Init(void* /*server*/, fuse_conn_info* conn) {
  conn->max_write = kMaxWrite;
  // So that a handle is enough to reach an object's file.
  conn->want |= FUSE_CAP_EXPORT_SUPPORT;
  // A lost RELEASE would keep the device busy.
  conn->max_background = UINT16_MAX;
}

// "." of an object's node: what the kernel asks for when a handle is opened.
void LookUp(fuse_req_t req, fuse_ino_t node, const char* name) {
  const bool is_there =
      std::strcmp(name, ".") == 0 &&
      (IsDevice(node) || (IsObject(node) && DeviceOf(req).HasObject(ObjectOf(node))));
  if (!is_there) {
    fuse_reply_err(req, ENOENT);
    return;
  }
  fuse_entry_param entry = {};
  entry.ino = node;
  entry.attr = AttributesOf(node);
  entry.attr_timeout = IsDevice(node) ? kForEver : 0;
  entry.entry_timeout = kForEver;
  fuse_reply_entry(req, &entry);
}

// An fstat(2) of an object's file gives no size, and comes without the open file; lseek(2) with
// SEEK_END asks for the size, and comes with it.
void GetAttr(fuse_req_t req, fuse_ino_t node, fuse_file_info* file) {
  struct stat attr = AttributesOf(node);
  if (IsDevice(node) || file == nullptr) {
    fuse_reply_attr(req, &attr, IsDevice(node) ? kForEver : 0);
    return;
  }
  const Result<uint64_t> size = DeviceOf(req).SizeOf(file->fh);
  if (!size.ok()) {
    fuse_reply_err(req, size.status().error());
    return;
  }
  attr.st_size = static_cast<off_t>(*size);
  fuse_reply_attr(req, &attr, 0);
}

// A shell's `>` truncates; a device takes no notice.  An object's file refuses.
void SetAttr(fuse_req_t req, fuse_ino_t node, struct stat*, int set, fuse_file_info* file) {
  constexpr int kAccess = FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID;
  if (!IsDevice(node)) {
    fuse_reply_err(req, EINVAL);
  } else if ((set & kAccess) != 0) {
    fuse_reply_err(req, EOPNOTSUPP);
  } else {
    GetAttr(req, node, file);
  }
}

// Its caller makes the completions of the programs in its mount namespace (ExactIds).
void SetXAttr(fuse_req_t req, fuse_ino_t node, const char* name, const char*, size_t, int) {
  const bool is_known = IsDevice(node) && std::strcmp(name, kExactIdsName) == 0;
  const int result =
      is_known ? ServerOf(req).deliveries().exact_ids().Register(CallerOf(req)) : -EOPNOTSUPP;
  fuse_reply_err(req, -result);
}

void Open(fuse_req_t req, fuse_ino_t node, fuse_file_info* file) {
  file->direct_io = 1;
  file->noflush = 1;
  CachefilesDevice& device = DeviceOf(req);  // The request ends with its reply.
  if (IsDevice(node)) {
    const int result = device.Open(CallerOf(req));
    if (result != 0) {
      fuse_reply_err(req, -result);
      return;
    }
    // The caller is gone: nothing will close it.
    if (fuse_reply_open(req, file) == -ENOENT) device.Close();
    return;
  }
  if ((file->flags & O_ACCMODE) != O_WRONLY) {
    fuse_reply_err(req, EACCES);
    return;
  }
  const Result<CachefilesDevice::Handle> handle = device.OpenObject(ObjectOf(node), CallerOf(req));
  if (!handle.ok()) {
    fuse_reply_err(req, handle.status().error());
    return;
  }
  file->fh = *handle;
  if (fuse_reply_open(req, file) == -ENOENT) device.CloseObject(*handle);
}

void Release(fuse_req_t req, fuse_ino_t node, fuse_file_info* file) {
  if (IsDevice(node)) {
    ServerOf(req).SetPoller(0);
    DeviceOf(req).Close();
  } else {
    DeviceOf(req).CloseObject(file->fh);
  }
  fuse_reply_err(req, 0);
}

void Read(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset, fuse_file_info*) {
  if (!IsDevice(node)) {
    fuse_reply_err(req, EBADF);
    return;
  }
  if (offset != kReadAndOpen) {
    ServerOf(req).deliveries().Read(req, size);
    return;
  }
  const Result<DeviceMessage> message =
      ServerOf(req).deliveries().NextWithLibrary(CallerOf(req), size);
  if (message.ok()) {
    fuse_reply_buf(req, message->bytes.data(), message->bytes.size());
  } else {
    fuse_reply_err(req, message.status().error());
  }
}

void Write(fuse_req_t req, fuse_ino_t node, const char* bytes, size_t size, off_t offset,
           fuse_file_info* file) {
  const std::string_view text(bytes, size);
  if (IsDevice(node)) {
    ReplyResult(req, DeviceOf(req).Write(CallerOf(req), text));
  } else {
    const int64_t written =
        DeviceOf(req).WriteObject(file->fh, CallerOf(req), text, static_cast<uint64_t>(offset));
    if (written > 0 && offset % kBlock == 0) {
      ServerOf(req).deliveries().AnswerWrite(req, static_cast<size_t>(written));
    } else {
      ReplyResult(req, written);
    }
  }
}

void Poll(fuse_req_t req, fuse_ino_t node, fuse_file_info*, fuse_pollhandle* poller) {
  // Its number is in the request, and is all that the next daemon needs to have of it.
  const bool is_to_be_told = poller != nullptr;
  if (is_to_be_told) fuse_pollhandle_destroy(poller);
  if (!IsDevice(node)) {
    fuse_reply_poll(req, POLLIN | POLLOUT);
    return;
  }
  // Before the look: what comes after it wakes the poller.
  if (is_to_be_told) ServerOf(req).SetPoller(ServerOf(req).connection().poll_handle());
  unsigned ready = static_cast<unsigned>(DeviceOf(req).Readiness());
  if (ServerOf(req).deliveries().HasWaiting()) ready |= POLLIN | POLLRDNORM;
  fuse_reply_poll(req, ready);
}

void Ioctl(fuse_req_t req, fuse_ino_t node, unsigned int command, void* argument,
           fuse_file_info* file, unsigned, const void* input, size_t input_size, size_t) {
  int result = -EINVAL;
  if (IsDevice(node)) {
    FailedOpen failed;
    result = -ENOTTY;
    if (command == kOpenFailed && input_size == sizeof(failed)) {
      std::memcpy(&failed, input, sizeof(failed));
      result = DeviceOf(req).FailOpen(failed.msg_id, failed.error);
    } else if (command == kOpenFailedValue) {
      const uint64_t value = reinterpret_cast<uintptr_t>(argument);
      result = ServerOf(req).deliveries().Fail(static_cast<uint32_t>(value >> 32), CallerOf(req),
                                               static_cast<int>(value & UINT32_MAX));
    }
  } else if (command == CACHEFILES_IOC_READ_COMPLETE) {
    // Comes here when the id is an address that can be read.
    result = DeviceOf(req).Complete(file->fh,
                                    static_cast<uint32_t>(reinterpret_cast<uintptr_t>(argument)));
  } else if (command == kReadComplete && input_size == sizeof(uint32_t)) {
    uint32_t id = 0;
    std::memcpy(&id, input, sizeof(id));
    result = DeviceOf(req).Complete(file->fh, id);
  }
  if (result < 0) {
    fuse_reply_err(req, -result);
  } else {
    fuse_reply_ioctl(req, 0, nullptr, 0);
  }
}

void Seek(fuse_req_t req, fuse_ino_t node, off_t offset, int whence, fuse_file_info* file) {
  if (IsDevice(node)) {
    fuse_reply_lseek(req, offset);
    return;
  }
  const Result<uint64_t> found =
      DeviceOf(req).Seek(file->fh, static_cast<uint64_t>(offset), whence);
  if (found.ok()) {
    fuse_reply_lseek(req, static_cast<off_t>(*found));
  } else {
    fuse_reply_err(req, found.status().error());
  }
}

void FSync(fuse_req_t req, fuse_ino_t, int, fuse_file_info*) { fuse_reply_err(req, EINVAL); }

fuse_lowlevel_ops Operations() {
  fuse_lowlevel_ops ops = {};
  ops.init = Init;
  ops.lookup = LookUp;
  ops.getattr = GetAttr;
  ops.setattr = SetAttr;
  ops.setxattr = SetXAttr;
  ops.open = Open;
  ops.release = Release;
  ops.read = Read;
  ops.write = Write;
  ops.poll = Poll;
  ops.ioctl = Ioctl;
  ops.lseek = Seek;
  ops.fsync = FSync;
  return ops;
}

CachefilesServer& ServerOf(void* userdata) { return *static_cast<CachefilesServer*>(userdata); }

// Member by member: libfuse 3.17 has one more than 3.14.
fuse_custom_io ConnectionCalls() {
  fuse_custom_io io = {};
  io.read = [](int fd, void* buffer, size_t size, void* userdata) {
    return ServerOf(userdata).connection().Receive(fd, buffer, size);
  };
  io.writev = [](int fd, iovec* iov, int count, void* userdata) {
    CachefilesServer& server = ServerOf(userdata);
    return server.connection().Reply(fd, iov, count, [&server] { server.Keep(); });
  };
  return io;
}

}  // namespace

CachefilesServer::~CachefilesServer() {
  Stop(is_kept_);
  if (!is_kept_) place_.End(is_cut_off_);
  if (session_ != nullptr) fuse_session_destroy(session_);  // Closes the descriptor.
  if (buffer_.mem != nullptr) munmap(buffer_.mem, kBufferBytes);
}

Status CachefilesServer::Start(cachecore::Cache* cache, const Grants* grants,
                               std::function<void()> sweep) {
  directory_.emplace(cache, [this] { Wake(); });
  directory_->SetGrants(grants, std::move(sweep));
  stop_ = UniqueFd(eventfd(0, EFD_CLOEXEC));
  if (!stop_.valid()) return Status::FromErrno(errno, "eventfd");
  UniqueFd directory = store_->Take(CachefilesDevice::kStoredDirectory);
  is_resumed_ = connection_.TakeOver(path_);
  is_kept_ = is_resumed_;
  if (!is_resumed_) RETURN_IF_ERROR(connection_.Begin());
  device_.emplace(cache, &*directory_, kMaxWrite, connection_.memory(), store_, mark_file_);
  if (is_resumed_) {
    place_.Resume(connection_.memory()->mount());
    RETURN_IF_ERROR(device_->Resume(std::move(directory)));
  } else {
    const Status mounted = place_.Mount(connection_.fuse(), connection_.memory());
    if (!mounted.ok()) connection_.Forget();
    RETURN_IF_ERROR(mounted);
  }
  const Status served = Serve();
  if (!served.ok() && !is_kept_) {
    place_.End(is_cut_off_);
    connection_.Forget();
  }
  return served;
}

Status CachefilesServer::Serve() {
  static char program[] = "holdfastd";
  char* argv[] = {program, nullptr};
  fuse_args args = FUSE_ARGS_INIT(1, argv);
  const fuse_lowlevel_ops operations = Operations();
  session_ = fuse_session_new(&args, &operations, sizeof(operations), this);
  fuse_opt_free_args(&args);
  if (session_ == nullptr) return Status(EINVAL, "libfuse refuses the session of " + path_);
  RETURN_IF_ERROR(connection_.Open(session_, ConnectionCalls()));
  // All of it is there, locked, and not shared with a child after fork(), which would write-protect
  // it: were the daemon killed while the kernel faults a page in during read(), that request would be
  // answered EIO.
  buffer_.mem = mmap(nullptr, kBufferBytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (buffer_.mem == MAP_FAILED) {
    buffer_.mem = nullptr;
    return Status::FromErrno(errno, "memory for requests of the cachefiles device");
  }
  PCHECK(madvise(buffer_.mem, kBufferBytes, MADV_DONTFORK) == 0);
  if (mlock(buffer_.mem, kBufferBytes) != 0) {
    PLOG(WARNING) << "mlock of a receive buffer; raise RLIMIT_MEMLOCK";
  }
  deliveries_.emplace(fault_file_, place_.device().value_or(0), &*device_, connection_.memory());
  if (is_resumed_) {
    RETURN_IF_ERROR(connection_.Replay(session_, &buffer_));
    deliveries_->Resume();
    // A program that waits in poll since the last daemon does not ask again by itself.
    SetPoller(connection_.memory()->poller());
    Wake();
    Publish();
  }
  thread_ = std::thread([this] { Run(); });
  LOG(INFO) << "the cachefiles device is " << path_;
  return Status();
}

void CachefilesServer::Run() {
  while (fuse_session_exited(session_) == 0) {
    pollfd fds[3] = {
        {connection_.fuse(), POLLIN, 0}, {stop_.get(), POLLIN, 0}, {deliveries_->fd(), POLLIN, 0}};
    if (poll(fds, 3, deliveries_->timeout_ms()) < 0) {
      PCHECK(errno == EINTR);
      continue;
    }
    if (fds[1].revents != 0) break;
    if (deliveries_->Tend()) Wake();
    const int got = fuse_session_receive_buf(session_, &buffer_);
    if (got == -EINTR || got == -EAGAIN) continue;
    if (got <= 0) {
      is_cut_off_ = true;
      // No RELEASE comes any more.
      device_->CloseAll();
      place_.End(is_cut_off_);
      Publish();
      LOG(ERROR) << "the cachefiles device " << path_
                 << " was unmounted; start holdfastd again to have it back";
      break;
    }
    mark_.Begin();
    fuse_session_process_buf(session_, &buffer_);
    // What was changed after the answer, or without one.
    Keep();
    connection_.memory()->Commit();
    mark_.End();
    if (deliveries_->Tend()) Wake();
  }
  deliveries_.reset();
}

void CachefilesServer::Keep() {
  device_->Keep();
  Publish();
}

void CachefilesServer::Publish() {
  if (std::exchange(published_, device_->revision()) == device_->revision()) return;
  MutexLock lock(&mu_);
  description_ = device_->Describe();
}

nlohmann::json CachefilesServer::Describe() {
  MutexLock lock(&mu_);
  return {{"path", path_},
          {"open", description_.is_open},
          {"pid", ProcessOf(description_.client)},
          {"bound", description_.is_bound},
          {"ondemand", description_.is_ondemand},
          {"directory", description_.directory},
          {"tag", description_.tag},
          {"culling", directory_ && directory_->is_culling()},
          {"trouble", description_.trouble}};
}

void CachefilesServer::Wake() {
  struct {
    fuse_out_header header;
    fuse_notify_poll_wakeup_out poller;
  } notice = {};
  notice.header.len = sizeof(notice);
  notice.header.error = FUSE_NOTIFY_POLL;
  MutexLock lock(&mu_);
  if (poller_ == 0) return;
  notice.poller.kh = poller_;
  // The kernel knows it no more once the program has closed the device.
  if (write(connection_.fuse(), &notice, sizeof(notice)) < 0) VLOG(1) << "nobody to be told";
}

void CachefilesServer::SetPoller(uint64_t poller) {
  connection_.memory()->PutPoller(poller);
  MutexLock lock(&mu_);
  poller_ = poller;
}

void CachefilesServer::Stop(bool goes_on) {
  if (!thread_.joinable()) return;
  is_kept_ = goes_on && !is_cut_off_;
  const uint64_t one = 1;
  PCHECK(write(stop_.get(), &one, sizeof(one)) == sizeof(one));
  thread_.join();
  {
    MutexLock lock(&mu_);
    poller_ = 0;
  }
  if (is_kept_) return;
  place_.End(is_cut_off_);
  connection_.Forget();
}

}  // namespace fusefs
