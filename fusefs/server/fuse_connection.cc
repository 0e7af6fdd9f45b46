#include "fusefs/server/fuse_connection.h"

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
#include <utility>

#include "cachecore/base/fault_point.h"
#include "cachecore/base/unique_fd.h"

namespace fusefs {

using cachecore::Status;

namespace {

// Newer than Debian 12's headers.
constexpr int32_t kNotifyResend = 7;              // FUSE_NOTIFY_RESEND.
constexpr uint32_t kHasResend = 1u << (39 - 32);  // FUSE_HAS_RESEND, in flags2.

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// What an INIT or its answer takes at most; both are about 100 bytes.
constexpr size_t kRoomBytes = 4096;

std::string FreshPath(const std::string& path) { return path + ".new"; }

Status TakeRoom(const std::string& path) {
  const std::string fresh = FreshPath(path);
  const cachecore::UniqueFd file(
      open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file.valid()) return Status::FromErrno(errno, "making " + fresh);
  const std::string room(kRoomBytes, '\0');
  const ssize_t wrote = write(file.get(), room.data(), room.size());
  if (wrote == static_cast<ssize_t>(room.size())) return Status();
  return Status::FromErrno(wrote < 0 ? errno : ENOSPC, "taking room in " + fresh);
}

// Atomic, and complete before the kernel can have been answered.  It need not survive a power cut:
// nor does the mount.  Written over what TakeRoom has taken: a full disk does not refuse it.
Status Save(const std::string& path, const void* bytes, size_t size) {
  const std::string fresh = FreshPath(path);
  const cachecore::UniqueFd file(open(fresh.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  const ssize_t wrote = file.valid() ? write(file.get(), bytes, size) : -1;
  if (wrote >= 0 && wrote != static_cast<ssize_t>(size)) errno = ENOSPC;
  if (wrote != static_cast<ssize_t>(size) || ftruncate(file.get(), static_cast<off_t>(size)) != 0 ||
      rename(fresh.c_str(), path.c_str()) != 0) {
    return Status::FromErrno(errno, "saving the kernel's INIT in " + path);
  }
  return cachecore::PassFaultPoint(cachecore::Fault::kInitSaved);
}

std::string Joined(const iovec* iov, int count) {
  std::string bytes;
  for (int i = 0; i < count; ++i) {
    bytes.append(static_cast<const char*>(iov[i].iov_base), iov[i].iov_len);
  }
  return bytes;
}

// Older kernels take a shorter one.
fuse_init_out InitOf(const std::string& answer) {
  fuse_init_out init = {};
  const std::string body = answer.substr(std::min(answer.size(), sizeof(fuse_out_header)));
  std::memcpy(&init, body.data(), std::min(body.size(), sizeof(init)));
  return init;
}

// Answers EIO in place of a reply of the wrong size.
bool Refused(int fd, size_t size, ExpectedReply* expected) {
  if (expected == nullptr || size == sizeof(fuse_out_header) + expected->bytes) return false;
  fuse_out_header header = {};
  header.len = sizeof(header);
  header.error = -EIO;
  header.unique = expected->unique;
  VLOG(1) << "a reply of " << size << " bytes in place of " << sizeof(header) + expected->bytes
          << " becomes EIO";
  expected->refused = true;
  if (write(fd, &header, sizeof(header)) < 0) PLOG(WARNING) << "answering EIO";
  return true;
}

}  // namespace

ssize_t FuseConnection::Splice(int in, off_t* in_offset, int out, off_t* out_offset, size_t size,
                               unsigned flags, ExpectedReply* expected) {
  if (Refused(out, size, expected)) {
    Answered(expected->unique);
    errno = EIO;  // libfuse empties its pipe and lets the request go.
    return -1;
  }
  cachecore::FaultPoint(cachecore::Fault::kBeforeReply);
  const ssize_t sent = splice(in, in_offset, out, out_offset, size, flags);
  cachecore::FaultPoint(cachecore::Fault::kReplied);
  // Also after ENOENT: the kernel no longer waits for it.
  if (sent >= 0 || errno == ENOENT) {
    const int error = errno;
    Answered(expected->unique);
    errno = error;
  }
  return sent;
}

Status FuseConnection::Reset() {
  for (const std::string& path : {state_path_, AnswerPath()}) {
    if (unlink(path.c_str()) != 0 && errno != ENOENT) {
      return Status::FromErrno(errno, "removing " + path);
    }
    RETURN_IF_ERROR(TakeRoom(path));
  }
  return Status();
}

bool FuseConnection::Replay() {
  const std::string bytes = ReadAll(state_path_);
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

Status FuseConnection::TakeOver(int fd) {
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

Status FuseConnection::CheckAnswer() const {
  const std::string given = ReadAll(AnswerPath());
  if (given.size() < sizeof(fuse_out_header) || init_answer_.empty()) return Status();
  const fuse_init_out theirs = InitOf(given);
  const fuse_init_out ours = InitOf(init_answer_);
  std::string differs;
  const auto compare = [&differs](const char* what, uint64_t agreed, uint64_t now) {
    if (agreed == now) return;
    differs += std::string(differs.empty() ? "" : ", ") + what + " " + std::to_string(agreed) +
               " and not " + std::to_string(now);
  };
  compare("protocol minor", theirs.minor, ours.minor);
  compare("flags", theirs.flags | uint64_t{theirs.flags2} << 32,
          ours.flags | uint64_t{ours.flags2} << 32);
  compare("max_write", theirs.max_write, ours.max_write);
  compare("max_pages", theirs.max_pages, ours.max_pages);
  if (differs.empty()) return Status();
  return Status(EPROTO,
                "the kernel was promised " + differs +
                    ", for as long as the mount lasts: unmount, then start the new program");
}

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

ssize_t FuseConnection::Read(int fd, void* buffer, size_t size, TakenRequest* taken) {
  *taken = {};
  const ssize_t got = Receive(fd, buffer, size, &taken->resent);
  if (got >= static_cast<ssize_t>(sizeof(fuse_in_header))) {
    taken->unique = static_cast<const fuse_in_header*>(buffer)->unique;
  }
  return got;
}

ssize_t FuseConnection::Receive(int fd, void* buffer, size_t size, bool* resent) {
  if (!replay_.empty()) {
    const std::string bytes = std::move(replay_);
    replay_.clear();
    std::memcpy(buffer, bytes.data(), bytes.size());
    return static_cast<ssize_t>(bytes.size());
  }
  if (has_kept_) {
    const ssize_t got = ReadKept(buffer, size);
    *resent = got > 0;
    if (*resent) return got;
  }
  while (true) {
    const ssize_t got = read(fd, buffer, size);
    if (got < static_cast<ssize_t>(sizeof(fuse_in_header))) return got;
    const auto* header = static_cast<const fuse_in_header*>(buffer);
    if (header->opcode != FUSE_INIT) {
      *resent = (header->unique & kResentBit) != 0;
      if (logging_) {
        log_->Add(buffer, static_cast<size_t>(got));
        cachecore::FaultPoint(cachecore::Fault::kRequestKept);
      }
      return got;
    }
    if (init_answer_.empty()) {
      NoteOffer(static_cast<const char*>(buffer), static_cast<size_t>(got));
      const Status saved = Save(state_path_, buffer, static_cast<size_t>(got));
      if (!saved.ok()) {
        // No later daemon could go on with this mount.
        LOG(ERROR) << saved.message() << "; the mount is refused";
        RefuseInit(fd, header->unique);
        continue;
      }
      unanswered_init_ = header->unique;
      return got;
    }
    // Sent again: the dead daemon had saved it and not answered.
    if (AnswerInit(fd, buffer) < 0) return -1;
  }
}

// The kernel fails whatever waits for the mount; the next read(2) says ENODEV once it is unmounted.
void FuseConnection::RefuseInit(int fd, uint64_t unique) {
  fuse_out_header header = {};
  header.len = sizeof(header);
  header.error = -EIO;
  header.unique = unique;
  if (write(fd, &header, sizeof(header)) < 0) PLOG(WARNING) << "refusing INIT";
  refused_ = true;
}

ssize_t FuseConnection::AnswerInit(int fd, const void* request) {
  std::string answer = init_answer_;
  const uint64_t unique = static_cast<const fuse_in_header*>(request)->unique;
  std::memcpy(answer.data() + offsetof(fuse_out_header, unique), &unique, sizeof(unique));
  SaveAnswer(answer);
  return write(fd, answer.data(), answer.size());
}

// Only an upgrade asks for it, so a mount without is not lost.
void FuseConnection::SaveAnswer(const std::string& answer) {
  const Status saved = Save(AnswerPath(), answer.data(), answer.size());
  LOG_IF(WARNING, !saved.ok()) << saved.message();
}

ssize_t FuseConnection::Write(int fd, const iovec* iov, int count, ExpectedReply* expected) {
  if (!keep_answer_) {
    size_t size = 0;
    for (int i = 0; i < count; ++i) size += iov[i].iov_len;
    const uint64_t unique = static_cast<const fuse_out_header*>(iov[0].iov_base)->unique;
    if (unique == unanswered_init_ && unique != 0) {
      unanswered_init_ = 0;
      SaveAnswer(Joined(iov, count));
    }
    cachecore::FaultPoint(cachecore::Fault::kBeforeReply);
    const ssize_t sent =
        Refused(fd, size, expected) ? static_cast<ssize_t>(size) : writev(fd, iov, count);
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
  init_answer_ = Joined(iov, count);
  return static_cast<ssize_t>(init_answer_.size());
}

}  // namespace fusefs
