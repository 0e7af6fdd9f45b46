// Has the READ_COMPLETE calls of this process, and of what it starts, made by a process beside it.
//
// Model    a filter of system calls stops each ioctl with that number, and no other call.  The
//          completer looks at the file: on an object of the device it makes the call that the
//          preloaded library makes, and the caller gets its result; any other ioctl goes on.  The
//          device is told, so that the ids that it gives are the kernel's.
// Errors   StartCompleter: one sentence that names what failed.
// Threads  StartCompleter: a process of one thread.  The completer has two, since an ioctl of the
//          device waits while there is no holdfastd.
// Owns     the completer is started by a process in between that ends at once: it becomes a child
//          of the reaper of orphans, which this process may be (PID 1, a subreaper).  It ends with
//          the last process under the filter, and keeps none of its descriptors.
// Crash    without the completer the ioctl gives ENOSYS for ever; a program is to be started again.
// See      seccomp_unotify(2); fusefs/cachefiles/exact_ids.h; holdfast-cachefiles-run(1)

#ifndef HOST_CACHEFILES_COMPLETER_H_
#define HOST_CACHEFILES_COMPLETER_H_

#include "cachecore/base/status.h"

namespace host {

// After EnterWithDevice.
cachecore::Status StartCompleter();

}  // namespace host

#endif  // HOST_CACHEFILES_COMPLETER_H_
