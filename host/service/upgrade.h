// Upgrade: puts the programs that are on disk now in the place of an instance's running daemons.
//
// Model    The new holdfastd is asked first whether it could take over (--check-state); only then
//          is the running one told to end, keeping its mounts, and the supervisor starts the new
//          one, which serves what waited.  Then the fetcher, whose connection waits in the store.
//          Last the supervisor, which runs its program on disk in its own process.
// Errors   ESRCH: it does not run; EOPNOTSUPP: another supervisor runs it; EBUSY: its
//          supervisor is stopped, and nothing was touched; EPROTO: the new program
//          cannot take over, the old one serves on; ECHILD, ETIMEDOUT: the new one does not serve,
//          and what to do.
// Threads  one thread only.
// Crash    killed at any point it leaves a supervisor that starts what is on disk.
// See      docs/recovery.md "An upgrade"

#ifndef HOST_SERVICE_UPGRADE_H_
#define HOST_SERVICE_UPGRADE_H_

#include <sys/types.h>

#include <chrono>
#include <string>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "host/instance/instance.h"

namespace host {

struct UpgradeReport {
  struct Life {
    pid_t pid = 0;
    std::string version;
  };
  Life old_daemon, new_daemon;
  pid_t old_fetcher = 0;  // 0: none was attached.
  pid_t new_fetcher = 0;
  Life supervisor;                     // As it is now.
  std::string old_supervisor_version;  // "": it goes on with the old program.
  std::string why_old_supervisor;      // Where it was asked to exchange it, and did not.
  std::chrono::milliseconds pause{0};  // From the old daemon's last answer to the new one's first.
};

// REQUIRES: LockInstance.
cachecore::Result<UpgradeReport> Upgrade(const Instance& instance,
                                         const cachecore::Deadline& deadline);

}  // namespace host

#endif  // HOST_SERVICE_UPGRADE_H_
