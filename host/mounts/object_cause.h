// ObjectCause: what the daemon says of an object that a mount waits for.
//
// Errors   "" when the daemon does not answer, or knows nothing; WaitingReadsOf has one.
// Threads  thread-safe: no state.  Blocks for two seconds at most.

#ifndef HOST_MOUNTS_OBJECT_CAUSE_H_
#define HOST_MOUNTS_OBJECT_CAUSE_H_

#include <string>
#include <vector>

#include "cachecore/base/status.h"
#include "host/instance/instance.h"
#include "host/mounts/mount_record.h"

namespace host {

// The error that the daemon keeps with an object, or why a request for it waits; "" when it knows
// neither.
std::string LastErrorOf(const Instance& instance, const MountRecord& record);
// Why an object that is being opened, and has no number to be known by yet, is waited for: by one
// of its URLs in the fetcher's sentence.
std::string CauseOfOpen(const Instance& instance, const std::vector<std::string>& urls);

// The reads of the object that wait: "2 reads of it wait: http://h/image: connection refused"; ""
// when none does.  ETIMEDOUT when the daemon runs and does not say.
cachecore::Result<std::string> WaitingReadsOf(const Instance& instance, const MountRecord& record);

}  // namespace host

#endif  // HOST_MOUNTS_OBJECT_CAUSE_H_
