// LockOwnMemory: keeps in memory what the supervisor runs on, and no more.
//
// Model    locked are the program itself, the C and C++ runtimes, the heap, the stack and other
//          memory without a file.  The libraries of other verbs, such as RocksDB, are mapped and
//          not used by a supervisor: locking them would hold 30 MB for nothing.
// Errors   none: a container may forbid it, and a supervisor is of use without.
// Threads  thread-safe: no state.
// Cost     reads /proc/self/maps once.

#ifndef HOST_SUPERVISOR_LOCKED_MEMORY_H_
#define HOST_SUPERVISOR_LOCKED_MEMORY_H_

namespace host {

void LockOwnMemory();

}  // namespace host

#endif  // HOST_SUPERVISOR_LOCKED_MEMORY_H_
