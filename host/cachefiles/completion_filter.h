// The filter of system calls that stops READ_COMPLETE until its listener has answered.
//
// Model    an ioctl(2) whose command is CACHEFILES_IOC_READ_COMPLETE, on whatever file, in the
//          native system call table.  It stays with this process and what it starts.
// Errors   one sentence.
// Threads  a process of one thread.
// See      seccomp(2), seccomp_unotify(2)

#ifndef HOST_CACHEFILES_COMPLETION_FILTER_H_
#define HOST_CACHEFILES_COMPLETION_FILTER_H_

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"

namespace host {

// The listener, close-on-exec.
cachecore::Result<cachecore::UniqueFd> InstallCompletionFilter();

}  // namespace host

#endif  // HOST_CACHEFILES_COMPLETION_FILTER_H_
