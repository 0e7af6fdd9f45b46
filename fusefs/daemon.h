// Daemon: puts the parts of holdfastd together, in order, and takes them apart again.
//
// Model    Start opens the cache, listens on both sockets, mounts FUSE and serves.  Run waits for
//          SIGTERM, SIGINT, a `stop` or an unmount, then ends in the reverse order and syncs.
//          With an fd store the FUSE connection outlives us: the next daemon finds it there, and
//          only `stop` and an unmount end it.
// Errors   Start: one sentence naming the directory or socket that cannot be used.
// Threads  Start and Run on the main thread, with the signals blocked in every thread.
// Owns     everything.
// See      docs/design.md "Processes".

#ifndef FUSEFS_DAEMON_H_
#define FUSEFS_DAEMON_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <utility>

#include "cachecore/base/status.h"
#include "cachecore/cache/cache.h"
#include "fusefs/cache_limits.h"
#include "fusefs/cachefiles/cachefiles_server.h"
#include "fusefs/control/control_ops.h"
#include "fusefs/control/control_server.h"
#include "fusefs/device/device_server.h"
#include "fusefs/housekeeper.h"
#include "fusefs/kept_totals.h"
#include "fusefs/server/fuse_server.h"
#include "fusefs/server/grants.h"
#include "fusefs/server/mounted_objects.h"
#include "fusefs/service/fd_store.h"
#include "fusefs/service/watchdog.h"

namespace fusefs {

struct DaemonConfig {
  std::string cache_dir;          // Holds db/ and data/.
  std::string run_dir;            // Holds device.sock and control.sock.
  std::string fuse_dir;           // Where the tree is mounted.
  std::string cachefiles_device;  // Where the kernel-style device is mounted; "" is nowhere.
  std::string boot_id;            // "" is the machine's own.
  std::string fault_file;         // What holdfast-injectd's is named after; "" is none.
  uid_t fetcher_uid = 0;
  int kernel_read_ahead_kb = 2048;
  cachecore::CacheOptions cache;
  FuseServerOptions fuse;
  HousekeeperOptions housekeeper;
  CacheLimitOptions limits;
};

class Daemon {
 public:
  // `stored`: what outlived the daemon before us.
  static cachecore::Result<std::unique_ptr<Daemon>> Start(const DaemonConfig& config,
                                                          FdStore stored);
  // Returns the exit code.
  int Run();

 private:
  Daemon(const DaemonConfig& config, FdStore stored)
      : config_(config), fd_store_(std::move(stored)) {}
  cachecore::Status Open();
  cachecore::Status OpenCache();
  // Goes on with, or begins, what says which objects are used; and what keeps the cache's size.
  cachecore::Status OpenUses(bool resumed);
  FuseServerOptions FuseOptions() const;
  // ENOENT when a mount goes on and its cache is gone, as on a file system that is not mounted now.
  cachecore::Status CheckCacheIsThere() const;
  // The listening socket of the daemon before us, or a new one, stored for the next: a peer that
  // connects while there is no daemon is served by the next one, and needs no retry.
  cachecore::Result<cachecore::UniqueFd> ObtainListener(const std::string& name, int type,
                                                        uid_t uid);
  // The connection of the daemon before us; not valid where there is none that lives.
  cachecore::UniqueFd TakeFuse();
  // A new mount.
  cachecore::Result<cachecore::UniqueFd> MakeFuse();
  // The requests that the daemon before us has not answered, or an empty log.
  cachecore::Result<std::unique_ptr<RequestLog>> ObtainRequestLog(bool resumed);
  // Pings the service manager, if it wants that.
  std::unique_ptr<Watchdog> StartWatchdog();
  // Ends the mount.
  int Unmount();

  const DaemonConfig config_;
  FdStore fd_store_;
  bool stored_ = false;          // The FUSE descriptor is in the store.
  cachecore::UniqueFd signals_;  // A signalfd.
  cachecore::UniqueFd stop_;     // An eventfd.
  // Torn down from the last to the first.
  std::unique_ptr<KeptTotals> totals_;
  std::unique_ptr<DeviceServer> device_;
  std::unique_ptr<CachefilesServer> cachefiles_;  // Or null.
  std::unique_ptr<ControlServer> control_;
  std::unique_ptr<cachecore::Cache> cache_;
  std::unique_ptr<Grants> grants_;
  std::unique_ptr<MountedObjects> mounted_;  // Or null.
  std::unique_ptr<CacheLimits> limits_;
  std::unique_ptr<Housekeeper> housekeeper_;
  std::unique_ptr<FuseServer> fuse_;
  std::unique_ptr<ControlOps> operations_;
  std::thread unmount_watch_;
};

}  // namespace fusefs

#endif  // FUSEFS_DAEMON_H_
