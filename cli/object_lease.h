// object_lease: tells the daemon which objects somebody has mounted.
//
// Model    `acquire` lends a mount its object for the time that it may take.  Once it is mounted it is
//          kept, until its last mount is gone.
// Errors   KeepObject: the daemon's own sentence.  ReleaseObject has none: a daemon that does not
//          answer is being replaced or ended, and what it keeps in vain is one name.
// Crash    killed in between, the loan ends by itself.

#ifndef CLI_OBJECT_LEASE_H_
#define CLI_OBJECT_LEASE_H_

#include <vector>

#include "cachecore/status.h"
#include "cli/instance.h"
#include "cli/mount_record.h"

namespace cli {

cachecore::Status KeepObject(const Instance& instance, const MountRecord& record);
// Unless one of `mounts`, the live ones, shows it too.
void ReleaseObject(const Instance& instance, const MountRecord& record,
                   const std::vector<MountRecord>& mounts);

}  // namespace cli

#endif  // CLI_OBJECT_LEASE_H_
