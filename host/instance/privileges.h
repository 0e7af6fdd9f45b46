// Whether this process has the rights of the machine's root, or only those of a namespace's.
//
// Errors   EPERM says what is missing and the cure.
// Threads  thread-safe: no state.

#ifndef HOST_INSTANCE_PRIVILEGES_H_
#define HOST_INSTANCE_PRIVILEGES_H_

#include <sys/types.h>

#include <string>
#include <string_view>

#include "cachecore/base/status.h"

namespace host {

// Unless we are root and may mount.  `what` needs that.
cachecore::Status RequireMountRights(const std::string& what);

// EPERM, saying what needs it, unless we are root.
cachecore::Status RequireRoot(const std::string& what);

// Our root is another than the machine's.
bool IsInUserNamespace();
// Our user namespace has a user `uid`.
bool IsMappedUid(uid_t uid);

// Of the text of /proc/PID/uid_map: (first uid inside, how many) are looked through for `uid`.
bool UidMapHas(std::string_view uid_map, uid_t uid);
// Of the text of /proc/PID/status: whether the effective capabilities hold that one; true where the
// text does not say.
bool HasEffectiveCapability(std::string_view status, int capability);

}  // namespace host

#endif  // HOST_INSTANCE_PRIVILEGES_H_
