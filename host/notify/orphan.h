// Orphan: the process of a service that has lost its supervisor, and the standby with it.
//
// Model    its pid file names it, with the time of its start, so no other process is taken for it.
//          What it has stored is copied from it, whatever it is doing
//          (cachecore/environment/descriptor_table.h).  One that lists nothing is of an earlier
//          version: it is ended.
// Errors   EPERM, EACCES: its descriptors may not be copied.  EBUSY: it runs with other arguments,
//          or does not end.  EIO and the like for a pid file that can't be removed.
// Threads  thread-safe: no state.
// See      host/supervisor/supervised_service.h: AdoptOrphan.

#ifndef HOST_NOTIFY_ORPHAN_H_
#define HOST_NOTIFY_ORPHAN_H_

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/environment/descriptor_table.h"
#include "cachecore/system/process.h"

namespace host {

struct Orphan {
  cachecore::PinnedProcess process;
  cachecore::DescriptorTable::Copies stored;
  bool is_child = false;  // Of this process, which was another program when it started it.
};

// Nothing: there is none, or none that a supervisor could go on with.  A process that lists nothing
// is waited for so long: it may have been started just now, or be a spare whose turn has just come.
cachecore::Result<std::optional<Orphan>> FindOrphan(const std::string& pid_path,
                                                    const std::string& program,
                                                    const std::vector<std::string>& argv,
                                                    std::chrono::milliseconds list_time);

// Whether another program in our place could go on with `process`, which `pidfd` pins.  OK also
// where it ends, or has listed nothing yet.  EPERM, EACCES, ENOSYS: its descriptors may not be
// copied.
cachecore::Status CheckAdoptable(pid_t process, const cachecore::UniqueFd& pidfd);

// Ends the process an earlier supervisor left behind and removes its pid file.  Only a process
// whose arguments are `argv` and whose program has the file name of `program` is touched; a pid
// file naming anything else is stale and just removed.  Returns the pid ended, or 0. Errors: EBUSY
// when the process outlives SIGKILL; EIO and the like for a pid file that can't be removed.
cachecore::Result<pid_t> EndStaleProcess(const std::string& pid_path, const std::string& program,
                                         const std::vector<std::string>& argv,
                                         std::chrono::milliseconds term_grace);

}  // namespace host

#endif  // HOST_NOTIFY_ORPHAN_H_
