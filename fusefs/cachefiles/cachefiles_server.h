// CachefilesServer: the FUSE session whose root is the cachefiles device, a regular file.
//
// Model    mounted on one path, as a file on a file.  The device is the root inode; an object's
//          file is another inode of the same mount, reached by its handle only (open_by_handle_at).
//          One thread takes the kernel's requests in order, so that a close is seen before the open
//          that follows it, and is the device thread of the Cache.
// Errors   Start: one sentence naming the path.  Requests: errnos of CachefilesDevice.
// Threads  Wake from any thread; the rest from the owner's.
// Owns     the mount, its /dev/fuse descriptor, the thread.
// Crash    with an fd store the next daemon goes on with the mount and all that is open of it
//          (CachefilesSession).  Without one the mount ends with the daemon: its descriptors give
//          ENOTCONN from then on, and the next daemon mounts the device anew.
// See      docs/cachefiles-compat.md; docs/design.md "The cachefiles device".

#ifndef FUSEFS_CACHEFILES_CACHEFILES_SERVER_H_
#define FUSEFS_CACHEFILES_CACHEFILES_SERVER_H_

#include <fuse_lowlevel.h>
#include <sys/types.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>

#include "cachecore/base/mutex.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/cache/cache.h"
#include "fusefs/cachefiles/cache_directory.h"
#include "fusefs/cachefiles/cachefiles_device.h"
#include "fusefs/cachefiles/cachefiles_session.h"
#include "fusefs/cachefiles/deliveries.h"
#include "fusefs/cachefiles/device_place.h"
#include "fusefs/service/fd_store.h"
#include "fusefs/service/watchdog.h"

namespace fusefs {

class CachefilesServer {
 public:
  // `run_dir`: where the connection's INIT is kept for the next daemon, and what was made at
  // `path`. `fault_file`: of holdfast-injectd, for tests; "" is none.
  CachefilesServer(const std::string& path, const std::string& run_dir, FdStore* store,
                   std::string fault_file)
      : path_(path),
        fault_file_(std::move(fault_file)),
        store_(store),
        connection_(run_dir + "/cachefiles.init", store),
        place_(path, run_dir),
        mark_file_(run_dir + "/cachefiles.directory") {}
  ~CachefilesServer();

  // Goes on with the device of the last daemon, or mounts one, on a file that is made if need be;
  // and serves it.  `grants` and `sweep`: see CacheDirectory::SetGrants.
  cachecore::Status Start(cachecore::Cache* cache, const Grants* grants,
                          std::function<void()> sweep);
  // A message may have become readable.  Callable before Start.
  void Wake() EXCLUDES(mu_);
  // Ends the thread.  Unmounts too, unless the device is to go on under the next daemon.
  void Stop(bool goes_on);
  // An earlier daemon's device went on before Start.
  bool is_resumed() const { return is_resumed_; }

  // For `status`.
  nlohmann::json Describe() EXCLUDES(mu_);

  // What the thread is at.
  const WorkMark& mark() const { return mark_; }
  CachefilesDevice& device() { return *device_; }
  CachefilesSession& connection() { return connection_; }
  Deliveries& deliveries() { return *deliveries_; }
  // After Start.
  CacheDirectory& directory() { return *directory_; }
  // Takes a poller's handle, or 0; it is told of the next Wake.
  void SetPoller(uint64_t poller) EXCLUDES(mu_);
  // Before each answer: what has changed is in the memory, and seen by other threads.
  void Keep() EXCLUDES(mu_);

 private:
  cachecore::Status Serve();
  void Run();
  // Shows other threads what the device's client has changed.
  void Publish() EXCLUDES(mu_);

  const std::string path_;
  const std::string fault_file_;
  FdStore* const store_;
  CachefilesSession connection_;
  bool is_resumed_ = false;
  bool is_kept_ = false;  // Stopped, and left to the next daemon.
  DevicePlace place_;     // The thread's while it runs.
  const std::string mark_file_;
  bool is_cut_off_ = false;  // By an unmount or an abort.  The thread's while it runs.
  std::optional<CacheDirectory> directory_;
  std::optional<CachefilesDevice> device_;
  std::optional<Deliveries> deliveries_;  // While the thread runs.
  fuse_session* session_ = nullptr;
  cachecore::UniqueFd stop_;  // An eventfd.
  fuse_buf buffer_ = {};      // Where requests are received: there before the first one comes.
  std::thread thread_;
  WorkMark mark_;
  uint64_t published_ = 0;  // The thread's.
  cachecore::Mutex mu_;
  uint64_t poller_ GUARDED_BY(mu_) = 0;
  CachefilesDevice::Description description_ GUARDED_BY(mu_);
};

}  // namespace fusefs

#endif  // FUSEFS_CACHEFILES_CACHEFILES_SERVER_H_
