// CachefilesSession: the /dev/fuse descriptor of the cachefiles device, over the lives of several
// daemons.
//
// Model    the descriptor and the device's memory are in the fd store.  The next daemon takes them
//          up (TakeOver), replays INIT and has the kernel send again what the dead daemon had not
//          answered.  One request is handled at a time.  Its answer is kept with the changes that
//          it has made, before it is sent: a request that comes again after that gets the same
//          answer, and is not carried out twice.
// Errors   TakeOver: why the last daemon's device cannot go on.  Receive and Reply: as read(2) and
//          writev(2).
// Threads  the owner's, then the device's; one at a time.
// Owns     the descriptor until Open has given it to libfuse; the memory.
// Crash    before the commit the request is carried out again, from the state before it; after it,
//          answered again.
// See      docs/recovery.md "The cachefiles device"; FuseConnection.

#ifndef FUSEFS_CACHEFILES_CACHEFILES_SESSION_H_
#define FUSEFS_CACHEFILES_CACHEFILES_SESSION_H_

#include <fuse_lowlevel.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "fusefs/cachefiles/device_memory.h"
#include "fusefs/server/fuse_connection.h"
#include "fusefs/service/fd_store.h"

namespace fusefs {

class CachefilesSession {
 public:
  // `state_path`: where the connection's INIT is kept for the next daemon.
  CachefilesSession(const std::string& state_path, FdStore* store)
      : store_(store), connection_(state_path, nullptr, true) {}

  // Takes what the last daemon has left from the store.  False: there is nothing, or it cannot go
  // on, and is forgotten.
  bool TakeOver(const std::string& path);
  // A new descriptor, which is to be mounted, and an empty memory, both stored.
  cachecore::Status Begin();
  // Gives the descriptor to `session`, whose userdata is `userdata`.
  cachecore::Status Open(fuse_session* session, const fuse_custom_io& io);
  // Runs the saved INIT through the session, if there is one.  `buffer`: where requests are
  // received.
  cachecore::Status Replay(fuse_session* session, fuse_buf* buffer);
  // The device ends with this daemon.
  void Forget() { Forget(store_); }
  // The same of a device that the last daemon had, and this one has not.
  static void ForgetStored(FdStore* store);

  int fuse() const { return fuse_.valid() ? fuse_.get() : fd_; }
  DeviceMemory* memory() { return memory_.get(); }
  // What the program's open of the device polls with: the handle of the last FUSE_POLL.
  uint64_t poll_handle() const { return poll_handle_; }

  ssize_t Receive(int fd, void* buffer, size_t size);
  // `keep` puts what the request has changed into the memory.
  ssize_t Reply(int fd, const iovec* iov, int count, const std::function<void()>& keep);

 private:
  static void Forget(FdStore* store);
  bool AnswerAgain(int fd, uint64_t unique);

  FdStore* const store_;
  FuseConnection connection_;
  cachecore::UniqueFd fuse_;
  int fd_ = -1;
  std::unique_ptr<DeviceMemory> memory_;
  bool is_replaying_ = false;
  std::map<uint64_t, AnswerRecord> earlier_answers_;  // By `unique`.
  uint64_t last_answered_ = 0;                        // Of this life; its answer has been sent.
  uint64_t poll_handle_ = 0;
};

}  // namespace fusefs

#endif  // FUSEFS_CACHEFILES_CACHEFILES_SESSION_H_
