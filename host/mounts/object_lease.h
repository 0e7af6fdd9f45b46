// object_lease: tells the daemon that an object is not mounted any more.
//
// Model    `acquire` lends a mount its object for the time that it may take, and `keep` makes that
//          last (host/mount/mount_operation.h), until the object's last mount is gone.
// Errors   none: a daemon that does not answer is being replaced or ended, and what it keeps in
//          vain is one name.

#ifndef HOST_MOUNTS_OBJECT_LEASE_H_
#define HOST_MOUNTS_OBJECT_LEASE_H_

#include <vector>

#include "host/instance/instance.h"
#include "host/mounts/mount_record.h"

namespace host {

// Unless one of `mounts`, the live ones, shows it too.
void ReleaseObject(const Instance& instance, const MountRecord& record,
                   const std::vector<MountRecord>& mounts);

}  // namespace host

#endif  // HOST_MOUNTS_OBJECT_LEASE_H_
