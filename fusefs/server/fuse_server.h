// FuseServer: serves the tree /<volume>/<object> to the kernel from a Cache.
//
// Model    read-only.  Node ids are object numbers; 1 is the root.  Handles are stateless: open is
//          answered ENOSYS once, after which the kernel opens and closes without asking and keeps
//          its page cache.  A read of present bytes is answered at once by splice from the data
//          file; one that must wait holds no thread: whoever completes it replies.
// Errors   lookups: ENOENT for what was not granted and as the fetcher says, else EIO.  Reads: EIO, EINTR for a killed reader.
// Threads  a few reader threads, one that watches interrupted reads, and a few that check what has
//          a digest.  Every callback of
// libfuse's
//          is noexcept in effect: nothing here throws.
// Owns     the /dev/fuse descriptor (from Start on), the session and its threads.
// Crash    the kernel keeps the requests; all that must survive are the descriptor, in the fd
// store, and
//          the connection's INIT (FuseConnection).
// See      docs/design.md "The FUSE side"; docs/recovery.md; docs/semantics.md.

#ifndef FUSEFS_FUSE_SERVER_H_
#define FUSEFS_FUSE_SERVER_H_

#include <fuse_lowlevel.h>

#include <atomic>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cachecore/cache.h"
#include "cachecore/mutex.h"
#include "cachecore/status.h"
#include "cachecore/unique_fd.h"
#include "fusefs/fuse_connection.h"
#include "fusefs/grants.h"
#include "fusefs/interrupts.h"
#include "fusefs/request_log.h"
#include "fusefs/watchdog.h"
#include "fusefs/work_pool.h"

namespace fusefs {

struct FuseServerOptions {
  int threads = 4;
  // Largest reply.  With its header it must fit the splice pipe (1 MiB), or the reply is copied.
  uint32_t max_read = 512 << 10;
  // Whether the kernel is asked to resend, if it can.  Off: as on a kernel that cannot.
  bool may_resend = true;
};

class FuseServer {
 public:
  // `state_path`: where the connection's INIT is kept for the next daemon; `log`: where the
  // requests are that we have not answered.
  FuseServer(FuseServerOptions options, const std::string& state_path,
             std::unique_ptr<RequestLog> log, cachecore::Cache* cache, const Grants* grants);
  ~FuseServer();

  // Takes over a mounted /dev/fuse descriptor and starts to serve it.  `resumed`: an earlier daemon
  // has served it before us, and its unanswered requests are taken up.
  cachecore::Status Start(cachecore::UniqueFd fd, bool resumed);
  // Whether this program could go on with the connection whose INIT is at `state_path`: EPROTO
  // names what speaks against it.  Serves nothing and touches nothing.  Instead of Start.
  cachecore::Status CheckReplay();
  // Waits until the kernel has ended the connection (the file system was unmounted).
  void WaitForUnmount();
  // Stops serving: no request is taken any more.  The mount stays.
  void Stop();

  uint64_t reads() const { return reads_.load(std::memory_order_relaxed); }
  // What the reader threads are at.  Constant after Start.
  const std::deque<WorkMark>& marks() const { return marks_; }

 private:
  friend struct FuseOps;  // fuse_ops.cc

  static constexpr int kMaxTries = 3;

  // A watch and who keeps it; what libfuse hands back to us when a request is interrupted.
  using Watched = std::pair<Interrupts*, uint64_t>;

  // A read of the kernel's, as long as it is not answered.
  struct ReadCall {
    fuse_req_t req;
    uint64_t unique;
    cachecore::ObjectNumber number;
    cachecore::ByteRange range;
    pid_t caller;
    bool resent;    // The kernel has sent it to a daemon before us too.
    int tries = 0;  // How often bytes for it were found wrong in the cache.
  };

  void Serve(WorkMark* mark, void* area);
  // A request that may wait is watched for its caller being killed, until it is answered.
  std::shared_ptr<Watched> Watch(fuse_req_t req, pid_t caller, bool resent);
  void Unwatch(fuse_req_t req, const std::shared_ptr<Watched>& watched);
  static fuse_custom_io CustomIo();
  cachecore::Status OpenSession(cachecore::UniqueFd fd);
  // Runs the saved INIT through the fresh session, before any thread serves.
  cachecore::Status ReplayInit();
  void ReadMissing(const ReadCall& call);
  // The reply of an object without a digest: from its file.
  void ReplyUnchecked(fuse_req_t req, uint64_t unique, cachecore::ObjectNumber number,
                      const cachecore::FileSlice& slice);
  // The reply of an object with a digest: from memory, after its bytes have been checked.
  void ReplyChecked(const ReadCall& call, const cachecore::FileSlice& slice);

  // The kernel's name for the request that this thread is handling (libfuse does not tell).
  static thread_local uint64_t current_unique_;

  const FuseServerOptions options_;
  cachecore::Cache* const cache_;
  const Grants* const grants_;
  const std::unique_ptr<RequestLog> log_;
  FuseConnection connection_;
  Interrupts interrupts_;
  WorkPool checkers_;
  fuse_session* session_ = nullptr;
  std::deque<WorkMark> marks_;  // One for each of threads_.
  std::vector<std::thread> threads_;
  std::atomic<bool> stopping_{false};
  std::atomic<int> serving_{0};     // Reader threads that have not left yet.
  std::atomic<uint64_t> reads_{0};  // A statistic.
};

}  // namespace fusefs

#endif  // FUSEFS_FUSE_SERVER_H_
