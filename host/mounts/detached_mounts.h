// DetachedMounts: the mounts that were detached while something may still use their file systems.
// No mount table shows those any more; their device numbers tell which processes have
// files of them open.
//
// Model    one file in the run directory, which goes with the instance.  It has no more entries
//          than there were device numbers and mount points; the kernel gives a number to another
//          file system later on, which mount tables then show.
// Errors   a Status names the file; a file that can't be read is none.
// Threads  thread-safe: no state.
// Crash    written whole or not at all.  Killed before, a command leaves users without a name.
// See      docs/semantics.md "Ways out"

#ifndef HOST_MOUNTS_DETACHED_MOUNTS_H_
#define HOST_MOUNTS_DETACHED_MOUNTS_H_

#include <string>
#include <vector>

#include "cachecore/base/status.h"
#include "host/instance/instance.h"
#include "host/mounts/mount_record.h"

namespace host {

// `record` is of a mount that was just detached.  REQUIRES: LockInstance.
cachecore::Status RememberDetached(const Instance& instance, const MountRecord& record);
// Those on the FUSE device `fuse_device`, and all that have a record, since an umount(8) leaves it.
std::vector<MountRecord> ListDetached(const Instance& instance, const std::string& fuse_device);

}  // namespace host

#endif  // HOST_MOUNTS_DETACHED_MOUNTS_H_
