// FuseOps: the FUSE operations: each decodes a request, asks the Cache and replies.
//
// Model    stateless but for the reads and look-ups that wait.  An operation is handed its request
//          as a FuseRequest and replies to it exactly once: before it returns, or later on the
//          thread that completes it.  It holds no thread meanwhile.
// Errors   to the reader: see FuseServer.
// Threads  thread-safe; operations run on FuseServer's reader threads, replies also on threads of
//          the Cache's callers and of the pool that checks bytes with a digest.
// Owns     the watch over interrupted reads; the checking threads.
// Crash    an unanswered request is the kernel's, or the request log's: the next daemon gets it.
// See      docs/design.md "The FUSE side"; fuse_callbacks.h, which libfuse calls.

#ifndef FUSEFS_SERVER_FUSE_OPS_H_
#define FUSEFS_SERVER_FUSE_OPS_H_

#include <fuse_lowlevel.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "cachecore/base/byte_range.h"
#include "cachecore/base/status.h"
#include "cachecore/cache/cache.h"
#include "fusefs/server/grants.h"
#include "fusefs/server/interrupts.h"
#include "fusefs/server/read_totals.h"
#include "fusefs/server/work_pool.h"

namespace fusefs {

// One request of the kernel, with what libfuse does not tell of it.
struct FuseRequest {
  fuse_req_t req;
  uint64_t unique;  // The kernel's name for it.
  bool resent;      // An earlier daemon had taken it.
  pid_t caller;     // The thread that waits for the reply.
};

class FuseOps {
 public:
  // `max_read`: the largest reply; `check_threads`: how many check bytes at once.  `totals` may be
  // null.
  FuseOps(uint32_t max_read, int check_threads, cachecore::Totals* totals, cachecore::Cache* cache,
          const Grants* grants);
  // Ends the threads: what waits for them is not answered.
  void Stop();

  void Init(fuse_conn_info* conn) const;
  void Lookup(const FuseRequest& request, fuse_ino_t parent, const char* name);
  void GetAttr(const FuseRequest& request, fuse_ino_t node);
  void Open(const FuseRequest& request);
  void Read(const FuseRequest& request, fuse_ino_t node, size_t size, off_t offset);
  void ReadDir(const FuseRequest& request, fuse_ino_t node, size_t size, off_t offset);
  void StatFs(const FuseRequest& request);

  // How many READ requests have come.
  uint64_t reads() const { return reads_.load(std::memory_order_relaxed); }

 private:
  static constexpr int kMaxTries = 3;

  // A watch and its keeper; what libfuse hands back to us when a request is interrupted.
  using Watched = std::pair<Interrupts*, uint64_t>;

  // A read of the kernel's, as long as it is not answered.
  struct ReadCall {
    FuseRequest request;
    cachecore::ObjectNumber number;
    cachecore::ByteRange range;
    int tries = 0;                       // How often bytes for it were found wrong in the cache.
    cachecore::Duration waits_since{0};  // Zero: it has not waited.
  };

  void LookupInRoot(const FuseRequest& request, const char* name);
  void LookupGranted(const FuseRequest& request, const std::string& volume_key, const char* name);
  // Gives `add` what a look-up in the directory would find, until it has enough.
  cachecore::Status List(fuse_ino_t directory,
                         const std::function<bool(const char*, const struct stat&)>& add);
  // A request that may wait is watched for its caller being killed, until it is answered.
  std::shared_ptr<Watched> Watch(const FuseRequest& request);
  void Unwatch(const FuseRequest& request, const std::shared_ptr<Watched>& watched);
  static void Interrupted(fuse_req_t req, void* watched);
  void ReadMissing(ReadCall call);
  // The reply of an object without a digest: from its file.
  void ReplyUnchecked(const ReadCall& call, const cachecore::FileSlice& slice);
  // The reply of an object with a digest: from memory, after its bytes have been checked.
  void ReplyChecked(const ReadCall& call, const cachecore::FileSlice& slice);
  // The reply of bytes that are not all in the object's file: from memory.
  void ReplyAssembled(const ReadCall& call, const cachecore::FileSlice& slice);
  // For want of bytes that were wrong in the cache: waits for them, or gives up.
  void ReplyFailed(const ReadCall& call, const cachecore::FileSlice& slice,
                   const cachecore::Status& why);

  const uint32_t max_read_;
  cachecore::Cache* const cache_;
  const Grants* const grants_;
  Interrupts interrupts_;
  WorkPool checkers_;
  std::atomic<uint64_t> reads_{0};  // A statistic.
  const ReadTotals totals_;
};

}  // namespace fusefs

#endif  // FUSEFS_SERVER_FUSE_OPS_H_
