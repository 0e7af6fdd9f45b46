// FuseConnection: the /dev/fuse descriptor as libfuse sees it, over the lives of several daemons.
//
// Model    sits under libfuse by fuse_session_custom_io.  The kernel's INIT is saved before it is
//          answered; a later daemon feeds the saved bytes to its fresh session, keeps the answer to
//          itself, and asks the kernel to send again what the dead daemon had read and not
//          answered.  Where the kernel cannot do that, taken requests are kept in a RequestLog
//          until they are answered, and the later daemon reads them from there first.
// Errors   as read(2) and writev(2): -1 and errno.
// Threads  Read, Write and Splice: any, at once.  Replay: before any of them.
// Owns     the saved INIT at `state_path`; not the descriptor.
// Crash    INIT saved, then answered: a daemon that dies between leaves an INIT that the kernel
//          sends again, and which is answered as the replayed one was.
// See      docs/recovery.md; Linux include/uapi/linux/fuse.h (FUSE_NOTIFY_RESEND, kernel 6.9).

#ifndef FUSEFS_SERVER_FUSE_CONNECTION_H_
#define FUSEFS_SERVER_FUSE_CONNECTION_H_

#include <sys/types.h>
#include <sys/uio.h>

#include <atomic>
#include <deque>
#include <string>
#include <vector>

#include "cachecore/base/mutex.h"
#include "cachecore/base/status.h"
#include "fusefs/server/request_log.h"

namespace fusefs {

// Set in `unique` of a request that the kernel sends again.
inline constexpr uint64_t kResentBit = 1ull << 63;

// What Read tells of a request beside its bytes.
struct TakenRequest {
  uint64_t unique = 0;
  bool resent = false;  // An earlier daemon had taken it.
};

// A reply that must carry exactly `bytes` after its header: a shorter one, as libfuse sends after
// an error before the end of a file, would be the end of the file to the kernel.  It becomes EIO.
struct ExpectedReply {
  uint64_t unique;
  size_t bytes;
  bool refused = false;  // It has become EIO.
};

class FuseConnection {
 public:
  // `log` may be null, and is used only if the kernel cannot resend.  Without `may_resend` the
  // kernel is not asked to, whatever it can.
  FuseConnection(std::string state_path, RequestLog* log, bool may_resend)
      : state_path_(std::move(state_path)), log_(log), may_resend_(may_resend) {}

  // Forgets an earlier connection's INIT, and takes the room for the next one's.  For a new mount.
  cachecore::Status Reset();
  // The next Read gives the saved INIT, whose answer Write keeps.  False when there is none: the
  // kernel's INIT has not been read yet, or not been saved, and will come (again) by itself.
  bool Replay();
  // Whether the answer that Replay has kept agrees with the one that the kernel was given.  EPROTO
  // when the kernel would be served in another way than was agreed; fine when none is known.
  cachecore::Status CheckAnswer() const;
  // INIT could not be saved, and was answered with an error: the mount is of no use.
  bool refused() const { return refused_; }
  // Whether what a daemon had taken comes from the log.  Known after Replay.
  bool IsLogging() const { return logging_; }
  // Asks the kernel to send again what was read and not answered; or, where it cannot, has Read
  // give what the log has kept of that.
  cachecore::Status TakeOver(int fd);

  ssize_t Read(int fd, void* buffer, size_t size, TakenRequest* taken);
  // `expected` is null for a reply of any size.
  ssize_t Write(int fd, const iovec* iov, int count, ExpectedReply* expected);
  // REQUIRES: `expected` is not null.
  ssize_t Splice(int in, off_t* in_offset, int out, off_t* out_offset, size_t size, unsigned flags,
                 ExpectedReply* expected);

 private:
  ssize_t Receive(int fd, void* buffer, size_t size, bool* resent);
  void RefuseInit(int fd, uint64_t unique);
  ssize_t AnswerInit(int fd, const void* request);
  // What the kernel offers in its INIT decides whether requests are logged.
  void NoteOffer(const char* init, size_t size);
  ssize_t ReadKept(void* buffer, size_t size) EXCLUDES(mu_);
  void Answered(uint64_t unique);
  void SaveAnswer(const std::string& answer);
  std::string AnswerPath() const { return state_path_ + ".answer"; }

  const std::string state_path_;
  RequestLog* const log_;
  const bool may_resend_;
  std::atomic<bool> logging_{false};
  std::atomic<bool> refused_{false};
  std::atomic<bool> has_kept_{false};  // kept_ is not empty.
  cachecore::Mutex mu_;
  std::deque<std::string> kept_ GUARDED_BY(mu_);
  // The kernel's INIT while it is not answered; 0: none.
  std::atomic<uint64_t> unanswered_init_{0};
  std::string replay_;  // Non-empty: to be read next.
  bool keep_answer_ = false;
  std::string init_answer_;  // Written before the reader threads start, constant from then on.
};

}  // namespace fusefs

#endif  // FUSEFS_SERVER_FUSE_CONNECTION_H_
