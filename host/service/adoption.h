// Adoption: an instance whose supervisor was killed together with its standby gets another one.
//
// Model    abandoned = its pid file names a living holdfastd, and nothing supervises.  The new
//          supervisor goes on with both daemons, as they are, and has their stored descriptors
//          again (host/notify/orphan.h).  Where holdfastd is dead too there is nothing to adopt:
//          its mounts are lost, and EnsureRunning starts the instance.  It is given the options of
//          the one that was lost.
// Errors   ECHILD quotes why the new supervisor ended; the daemons serve on.  ETIMEDOUT.
// Threads  thread-safe: no state.

#ifndef HOST_SERVICE_ADOPTION_H_
#define HOST_SERVICE_ADOPTION_H_

#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "host/instance/instance.h"

namespace host {

// What the supervisor was given on its command line is kept beside its status, for the one that may
// have to take its place.
cachecore::Status KeepSuperviseFlags(const Instance& instance,
                                     const std::vector<std::string>& flags);

bool IsAbandoned(const Instance& instance);
// Says on stderr what it has done.  REQUIRES: LockInstance, IsAbandoned.
cachecore::Status AdoptAbandoned(const Instance& instance, const cachecore::Deadline& deadline);

}  // namespace host

#endif  // HOST_SERVICE_ADOPTION_H_
