// FuseServer: serves the tree /<volume>/<object> to the kernel from a Cache.
//
// Model    read-only.  Node ids are object numbers; 1 is the root.  Handles are stateless: open is
//          answered ENOSYS once, after which the kernel opens and closes without asking and keeps
//          its page cache.  A read of present bytes is answered at once by splice from the data
//          file; one that must wait holds no thread: the thread that completes it
//          replies.
// Errors   lookups: ENOENT for what was not granted and as the fetcher says, else EIO.  Reads: EIO,
//          EINTR for a killed reader.
// Threads  a few reader threads, one that watches interrupted reads, and a few that check what has
//          a digest.  Every callback of libfuse's is noexcept in effect: nothing here throws.
// Owns     the /dev/fuse descriptor (from Start on), the session and its threads.
// Crash    the kernel keeps the requests; all that must survive are the descriptor, in the fd
//          store, and the connection's INIT (FuseConnection).
// See      docs/design.md "The FUSE side"; docs/recovery.md; docs/semantics.md.

#ifndef FUSEFS_SERVER_FUSE_SERVER_H_
#define FUSEFS_SERVER_FUSE_SERVER_H_

#include <fuse_lowlevel.h>

#include <atomic>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/cache/cache.h"
#include "fusefs/server/fuse_callbacks.h"
#include "fusefs/server/fuse_connection.h"
#include "fusefs/server/fuse_ops.h"
#include "fusefs/server/grants.h"
#include "fusefs/server/request_log.h"
#include "fusefs/service/watchdog.h"

namespace fusefs {

struct FuseServerOptions {
  int threads = 4;
  // Largest reply.  With its header it must fit the splice pipe (1 MiB), or the reply is copied.
  uint32_t max_read = 512 << 10;
  // Whether the kernel is asked to resend, if it can.  Off: as on a kernel that cannot.
  bool may_resend = true;
  // Go on with what is counted; null: nothing does.
  cachecore::Totals* totals = nullptr;
};

class FuseServer {
 public:
  // `state_path`: where the connection's INIT is kept for the next daemon; `log`: where the
  // requests are that we have not answered.
  FuseServer(FuseServerOptions options, const std::string& state_path,
             std::unique_ptr<RequestLog> log, cachecore::Cache* cache, const Grants* grants);
  ~FuseServer();

  // Takes over a mounted /dev/fuse descriptor and starts to serve it.  `resumed`: an earlier daemon
  // has served it, and its unanswered requests are taken over.
  cachecore::Status Start(cachecore::UniqueFd fd, bool resumed);
  // Whether this program could go on with the connection whose INIT is at `state_path`: EPROTO
  // names what speaks against it.  Serves nothing and touches nothing.  Instead of Start.
  cachecore::Status CheckReplay();
  // Whether the next daemon needs the request log.  After CheckReplay.
  bool NeedsRequestLog() const { return connection_.IsLogging(); }
  // Waits until the kernel has ended the connection (the file system was unmounted).
  void WaitForUnmount();
  // Stops serving: no request is taken any more.  The mount stays.
  void Stop();

  // The kernel's INIT could not be saved: it was answered with an error.
  bool is_refused() const { return connection_.refused(); }
  uint64_t reads() const { return ops_.reads(); }
  // What the reader threads are at.  Constant after Start.
  const std::deque<WorkMark>& marks() const { return marks_; }

 private:
  void Serve(WorkMark* mark, void* area);
  cachecore::Status OpenSession(cachecore::UniqueFd fd);
  // Runs the saved INIT through the fresh session, before any thread serves.
  cachecore::Status ReplayInit();

  const FuseServerOptions options_;
  const std::unique_ptr<RequestLog> log_;
  FuseConnection connection_;
  FuseOps ops_;
  FuseCallees callees_{&ops_, &connection_};  // The session's userdata.
  fuse_session* session_ = nullptr;
  std::deque<WorkMark> marks_;  // One for each of threads_.
  std::vector<std::thread> threads_;
  std::atomic<bool> stopping_{false};
  std::atomic<int> serving_{0};  // Reader threads that have not left yet.
};

}  // namespace fusefs

#endif  // FUSEFS_SERVER_FUSE_SERVER_H_
