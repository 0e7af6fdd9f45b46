// Counts operator new in one process of a test, visibly to the process that forked it.
//
// See      its own file, since a compiler that sees both free() and operator new takes them for a
//          mismatch.

#ifndef TESTS_HOST_SUPERVISOR_COUNTING_NEW_H_
#define TESTS_HOST_SUPERVISOR_COUNTING_NEW_H_

#include <cstdint>

namespace host {

// Called before the fork: zero, and shared from now on.
void ResetAllocationCount();
// Called after the fork, in the process to be counted.
void CountAllocationsHere(bool on);
uint64_t AllocationCount();

}  // namespace host

#endif  // TESTS_HOST_SUPERVISOR_COUNTING_NEW_H_
