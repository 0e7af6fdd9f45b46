// The address ADDRESS:PORT of this machine alone: 127.x.y.z or [::1].
//
// Errors   EINVAL: it is no such address.  Otherwise the errno of listening there.
// Threads  thread-safe: no state.

#ifndef HOST_CONFIG_LOOPBACK_ADDRESS_H_
#define HOST_CONFIG_LOOPBACK_ADDRESS_H_

#include <string>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"

namespace host {

cachecore::Status CheckLoopback(const std::string& address);
// Whether listening there takes CAP_NET_BIND_SERVICE.
bool HasPortOfRoot(const std::string& address);
cachecore::Result<cachecore::UniqueFd> ListenOnLoopback(const std::string& address);

}  // namespace host

#endif  // HOST_CONFIG_LOOPBACK_ADDRESS_H_
