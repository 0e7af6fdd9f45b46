#include "fusefs/fuse_connection.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <linux/fuse.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>

#include "cachecore/fault_point.h"
#include "cachecore/unique_fd.h"

namespace fusefs {

using cachecore::Status;

namespace {

// Newer than Debian 12's headers.
constexpr int32_t kNotifyResend = 7;              // FUSE_NOTIFY_RESEND.
constexpr uint32_t kHasResend = 1u << (39 - 32);  // FUSE_HAS_RESEND, in flags2.

thread_local bool resent = false;

struct Expected {
  uint64_t unique = 0;
  size_t size = 0;  // With the header; 0 is anything.
};
thread_local Expected expected;

// Answers EIO in place of a reply of the wrong size.
bool Refused(int fd, size_t size) {
  if (expected.size == 0 || size == expected.size) return false;
  fuse_out_header header = {};
  header.len = sizeof(header);
  header.error = -EIO;
  header.unique = expected.unique;
  LOG(ERROR) << "a reply of " << size << " bytes in place of " << expected.size
             << ": the data file cannot be read; the reader gets EIO";
  if (write(fd, &header, sizeof(header)) < 0) PLOG(WARNING) << "answering EIO";
  return true;
}

}  // namespace

void FuseConnection::ExpectReply(uint64_t unique, size_t size) {
  expected = {unique, sizeof(fuse_out_header) + size};
}

void FuseConnection::ExpectNothing() { expected = {}; }

ssize_t FuseConnection::Splice(int in, off_t* in_offset, int out, off_t* out_offset, size_t size,
                               unsigned flags) {
  if (Refused(out, size)) {
    Answered(expected.unique);
    errno = EIO;  // libfuse empties its pipe and lets the request go.
    return -1;
  }
  cachecore::FaultPoint(cachecore::Fault::kBeforeReply);
  const ssize_t sent = splice(in, in_offset, out, out_offset, size, flags);
  cachecore::FaultPoint(cachecore::Fault::kReplied);
  if (sent >= 0) Answered(expected.unique);
  return sent;
}

Status FuseConnection::Reset() {
  if (unlink(state_path_.c_str()) == 0 || errno == ENOENT) return Status();
  return Status::FromErrno(errno, "removing " + state_path_);
}

bool FuseConnection::Replay() {
  std::ifstream file(state_path_, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  fuse_in_header header;
  if (bytes.size() < sizeof(header)) return false;
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (header.opcode != FUSE_INIT || header.len != bytes.size()) {
    LOG(ERROR) << state_path_ << " is not an INIT request; the kernel is asked for it again";
    return false;
  }
  NoteOffer(bytes.data(), bytes.size());
  replay_ = bytes;
  keep_answer_ = true;
  return true;
}

void FuseConnection::NoteOffer(const char* init, size_t size) {
  fuse_init_in offer = {};
  const size_t body = size - sizeof(fuse_in_header);
  std::memcpy(&offer, init + sizeof(fuse_in_header), std::min(body, sizeof(offer)));
  const bool resends = (offer.flags & FUSE_INIT_EXT) != 0 && (offer.flags2 & kHasResend) != 0;
  logging_ = log_ != nullptr && !(resends && may_resend_);
}

Status FuseConnection::TakeUp(int fd) {
  if (logging_) {
    const std::vector<std::string> unanswered = log_->TakeUnanswered();
    LOG(INFO) << "the kernel cannot resend: " << unanswered.size() << " requests come from the log";
    cachecore::MutexLock lock(&mu_);
    kept_.assign(unanswered.begin(), unanswered.end());
    has_kept_ = !kept_.empty();
    return Status();
  }
  fuse_out_header header = {};
  header.len = sizeof(header);
  header.error = kNotifyResend;
  if (write(fd, &header, sizeof(header)) == sizeof(header)) return Status();
  return Status::FromErrno(errno, "FUSE_NOTIFY_RESEND");
}

// Atomic, and complete before the kernel can have been answered.  It need not survive a power cut:
// nor does the mount.
Status FuseConnection::Save(const void* request, size_t size) {
  const std::string fresh = state_path_ + ".new";
  const cachecore::UniqueFd file(
      open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file.valid() || write(file.get(), request, size) != static_cast<ssize_t>(size) ||
      rename(fresh.c_str(), state_path_.c_str()) != 0) {
    return Status::FromErrno(errno, "saving the kernel's INIT in " + state_path_);
  }
  return cachecore::PassFaultPoint(cachecore::Fault::kInitSaved);
}

bool FuseConnection::Resent() { return resent; }

void FuseConnection::Answered(uint64_t unique) {
  if (logging_) log_->Remove(unique);
}

ssize_t FuseConnection::ReadKept(void* buffer, size_t size) {
  cachecore::MutexLock lock(&mu_);
  if (kept_.empty()) return 0;
  const std::string request = std::move(kept_.front());
  kept_.pop_front();
  has_kept_ = !kept_.empty();
  CHECK_LE(request.size(), size);
  std::memcpy(buffer, request.data(), request.size());
  return static_cast<ssize_t>(request.size());
}

ssize_t FuseConnection::Read(int fd, void* buffer, size_t size) {
  resent = false;
  if (!replay_.empty()) {
    const std::string bytes = std::move(replay_);
    replay_.clear();
    std::memcpy(buffer, bytes.data(), bytes.size());
    return static_cast<ssize_t>(bytes.size());
  }
  if (has_kept_) {
    const ssize_t got = ReadKept(buffer, size);
    resent = got > 0;
    if (resent) return got;
  }
  while (true) {
    const ssize_t got = read(fd, buffer, size);
    if (got < static_cast<ssize_t>(sizeof(fuse_in_header))) return got;
    const auto* header = static_cast<const fuse_in_header*>(buffer);
    if (header->opcode != FUSE_INIT) {
      resent = (header->unique & kResentBit) != 0;
      if (logging_) {
        log_->Add(buffer, static_cast<size_t>(got));
        cachecore::FaultPoint(cachecore::Fault::kRequestKept);
      }
      return got;
    }
    if (init_answer_.empty()) {
      NoteOffer(static_cast<const char*>(buffer), static_cast<size_t>(got));
      const Status saved = Save(buffer, static_cast<size_t>(got));
      if (!saved.ok()) LOG(ERROR) << saved.message() << "; a restart will lose this mount";
      return got;
    }
    // Sent again: the dead daemon had saved it and not answered.
    if (AnswerInit(fd, buffer) < 0) return -1;
  }
}

ssize_t FuseConnection::AnswerInit(int fd, const void* request) {
  std::string answer = init_answer_;
  const uint64_t unique = static_cast<const fuse_in_header*>(request)->unique;
  std::memcpy(answer.data() + offsetof(fuse_out_header, unique), &unique, sizeof(unique));
  return write(fd, answer.data(), answer.size());
}

ssize_t FuseConnection::Write(int fd, const iovec* iov, int count) {
  if (!keep_answer_) {
    size_t size = 0;
    for (int i = 0; i < count; ++i) size += iov[i].iov_len;
    const uint64_t unique = static_cast<const fuse_out_header*>(iov[0].iov_base)->unique;
    cachecore::FaultPoint(cachecore::Fault::kBeforeReply);
    const ssize_t sent = Refused(fd, size) ? static_cast<ssize_t>(size) : writev(fd, iov, count);
    cachecore::FaultPoint(cachecore::Fault::kReplied);
    // Also after ENOENT: the kernel no longer waits for it.
    if (sent >= 0 || errno == ENOENT) {
      const int error = errno;
      Answered(unique);
      errno = error;
    }
    return sent;
  }
  keep_answer_ = false;
  for (int i = 0; i < count; ++i) {
    init_answer_.append(static_cast<const char*>(iov[i].iov_base), iov[i].iov_len);
  }
  return static_cast<ssize_t>(init_answer_.size());
}

}  // namespace fusefs
