#include "fusefs/cachefiles/cachefiles_session.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "cachecore/base/fault_point.h"
#include "fusefs/cachefiles/cachefiles_device.h"
#include "fusefs/server/fuse_mount.h"

namespace fusefs {

using cachecore::Fault;
using cachecore::FaultPoint;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

namespace {

constexpr char kStoredFuse[] = "cachefiles";
constexpr char kStoredMemory[] = "cachefiles.state";
constexpr size_t kEarlierAnswers = 16;

// Not unmounted, and mounted at all.
bool IsServed(int fuse) {
  pollfd probe = {fuse, POLLIN, 0};
  return poll(&probe, 1, 0) >= 0 && (probe.revents & POLLERR) == 0;
}

// Unless another daemon's device is there by now.  Asks no server.
void Unmount(const MountRecord& mount) {
  struct statx info;
  if (statx(AT_FDCWD, mount.path.c_str(), AT_STATX_DONT_SYNC, 0, &info) == 0 &&
      makedev(info.stx_dev_major, info.stx_dev_minor) == mount.device) {
    umount2(mount.path.c_str(), MNT_DETACH);
  }
}

}  // namespace

bool CachefilesSession::TakeOver(const std::string& path) {
  UniqueFd fuse = store_->Take(kStoredFuse);
  UniqueFd memory = store_->Take(kStoredMemory);
  std::string reason;
  if (!fuse.valid()) return false;
  if (!IsServed(fuse.get())) {
    reason = "it was unmounted";
  } else if (!memory.valid()) {
    reason = "its state was not stored";
  } else {
    Result<std::unique_ptr<DeviceMemory>> opened = DeviceMemory::Open(std::move(memory));
    if (!opened.ok()) {
      reason = opened.status().message();
    } else if ((*opened)->mount().path != path) {
      reason = "it was another file, " + (*opened)->mount().path;
      Unmount((*opened)->mount());
    } else if (const Status again = connection_.TakeOver(fuse.get()); !again.ok()) {
      reason = "the kernel does not send again what it had been asked (Linux 6.9 does): " +
               again.message();
    } else {
      memory_ = std::move(opened).value();
      earlier_answers_ = memory_->answers();
    }
  }
  if (memory_ != nullptr) {
    // Of each life one at most is sent again.
    while (earlier_answers_.size() > kEarlierAnswers) {
      memory_->EraseAnswer(earlier_answers_.begin()->first);
      earlier_answers_.erase(earlier_answers_.begin());
    }
    fuse_ = std::move(fuse);
    LOG(INFO) << "going on with the cachefiles device of the last daemon";
    return true;
  }
  LOG(WARNING) << "the last daemon's cachefiles device ends: " << reason;
  Forget();
  return false;
}

Status CachefilesSession::Begin() {
  RETURN_IF_ERROR(connection_.Reset());
  ASSIGN_OR_RETURN(fuse_, OpenFuse());
  // A stop must not wait for a request.
  if (fcntl(fuse_.get(), F_SETFL, O_RDWR | O_NONBLOCK) != 0) {
    return Status::FromErrno(errno, "/dev/fuse");
  }
  ASSIGN_OR_RETURN(memory_, DeviceMemory::Open(UniqueFd()));
  if (!store_->available()) return Status();
  RETURN_IF_ERROR(store_->Store(kStoredMemory, memory_->memory()));
  RETURN_IF_ERROR(store_->Store(kStoredFuse, fuse_.get()));
  FaultPoint(Fault::kCachefilesStored);
  return Status();
}

Status CachefilesSession::Open(fuse_session* session, const fuse_custom_io& io) {
  const int error = fuse_session_custom_io(session, &io, fuse_.get());
  if (error != 0) return Status(-error, "libfuse refuses the /dev/fuse descriptor");
  fd_ = fuse_.Release();  // The session's now.
  return Status();
}

Status CachefilesSession::Replay(fuse_session* session, fuse_buf* buffer) {
  if (connection_.Replay()) {
    is_replaying_ = true;
    const int got = fuse_session_receive_buf(session, buffer);
    if (got > 0) fuse_session_process_buf(session, buffer);
    is_replaying_ = false;
    if (got <= 0) return Status(EPROTO, "libfuse does not take the saved INIT");
  }
  FaultPoint(Fault::kCachefilesTakenOver);
  return Status();
}

void CachefilesSession::ForgetStored(FdStore* store) {
  if (store->Find(kStoredFuse) < 0) return;
  LOG(INFO) << "the last daemon's cachefiles device ends: this one has none";
  UniqueFd memory = store->Take(kStoredMemory);
  if (memory.valid()) {
    const Result<std::unique_ptr<DeviceMemory>> opened = DeviceMemory::Open(std::move(memory));
    if (opened.ok()) Unmount((*opened)->mount());
  }
  Forget(store);
}

void CachefilesSession::Forget(FdStore* store) {
  for (const char* name : {kStoredFuse, kStoredMemory, CachefilesDevice::kStoredDirectory}) {
    (void)store->Take(name);
    store->Remove(name);
  }
}

ssize_t CachefilesSession::Receive(int fd, void* buffer, size_t size) {
  while (true) {
    TakenRequest taken;
    const ssize_t got = connection_.Read(fd, buffer, size, &taken);
    if (got < static_cast<ssize_t>(sizeof(fuse_in_header)) || is_replaying_) return got;
    FaultPoint(Fault::kCachefilesReceived);
    if (taken.resent && AnswerAgain(fd, taken.unique)) continue;
    const auto* header = static_cast<const fuse_in_header*>(buffer);
    if (header->opcode == FUSE_POLL) {
      fuse_poll_in poll;
      std::memcpy(&poll, header + 1, sizeof(poll));
      poll_handle_ = poll.kh;
    }
    return got;
  }
}

// An earlier daemon has carried it out, and may not have answered.
bool CachefilesSession::AnswerAgain(int fd, uint64_t unique) {
  const auto it = earlier_answers_.find(unique & ~kResentBit);
  if (it == earlier_answers_.end()) return false;
  std::string bytes = it->second.bytes;
  std::memcpy(bytes.data() + offsetof(fuse_out_header, unique), &unique, sizeof(unique));
  if (write(fd, bytes.data(), bytes.size()) < 0 && errno != ENOENT) {
    PLOG(WARNING) << "answering a request of the cachefiles device";
  }
  return true;
}

ssize_t CachefilesSession::Reply(int fd, const iovec* iov, int count,
                                 const std::function<void()>& keep) {
  if (is_replaying_) return connection_.Write(fd, iov, count, nullptr);
  keep();
  if (memory_->has_changes()) {
    AnswerRecord answer;
    for (int i = 0; i < count; ++i) {
      answer.bytes.append(static_cast<const char*>(iov[i].iov_base), iov[i].iov_len);
    }
    std::memcpy(&answer.unique, answer.bytes.data() + offsetof(fuse_out_header, unique),
                sizeof(answer.unique));
    answer.unique &= ~kResentBit;
    memory_->PutAnswer(answer);
    if (last_answered_ != 0) memory_->EraseAnswer(last_answered_);
    last_answered_ = answer.unique;
    FaultPoint(Fault::kCachefilesDone);
    memory_->Commit();
    FaultPoint(Fault::kCachefilesKept);
  }
  return connection_.Write(fd, iov, count, nullptr);
}

}  // namespace fusefs
