// Capabilities: what a process of root gives up, so that an attacker who takes it over has less.
//
// Model    a process keeps the capabilities that it names, and no program that it starts
//          gets any.
// Errors   those of capset(2) and prctl(2).
// Threads  of the calling thread, and of those that it starts later: before there are others.
// See      capabilities(7)

#ifndef CACHECORE_ENVIRONMENT_CAPABILITIES_H_
#define CACHECORE_ENVIRONMENT_CAPABILITIES_H_

#include <cstdint>

#include "cachecore/base/status.h"

namespace cachecore {

// A set with the capability `number`, as CAP_DAC_READ_SEARCH of <linux/capability.h>.
constexpr uint64_t CapabilityBit(int number) { return uint64_t{1} << number; }

// What no program that we start may ever have again.  In a container that leaves us no CAP_SETPCAP
// it does nothing.
void DropBoundingSet();
// Has these and no others.  EPERM: one of them it has not.
Status SetCapabilities(uint64_t wanted);
// Has no others than these, and starts programs with none.
Status KeepCapabilities(uint64_t kept);

}  // namespace cachecore

#endif  // CACHECORE_ENVIRONMENT_CAPABILITIES_H_
