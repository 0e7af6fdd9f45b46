// What of a caller's environment reaches the processes of an instance: what is listed, no more.
//
// Threads  thread-safe: no state.
// See      holdfast(1) ENVIRONMENT

#ifndef CACHECORE_ENVIRONMENT_SERVICE_ENVIRONMENT_H_
#define CACHECORE_ENVIRONMENT_SERVICE_ENVIRONMENT_H_

#include <string_view>

namespace cachecore {

// Whether a service may have `variable`, "NAME=VALUE".  `brings`: it is the fetcher, which is also
// given what is said of proxies, certificates and where credentials are.
bool ServiceMayHave(std::string_view variable, bool brings);
// Whether the supervisor may: all that its services may, and the secrets that it takes out of it.
bool SupervisorMayHave(std::string_view variable);

}  // namespace cachecore

#endif  // CACHECORE_ENVIRONMENT_SERVICE_ENVIRONMENT_H_
