// Answers the calls that the filter of InstallCompletionFilter has stopped.
//
// Model    one thread takes each call and looks at its file.  What is not an object of the device
//          at kCachefilesPath goes on at once.  A second thread makes the completions, in order.
// Errors   a completion's errno is its caller's.  ServeCompletions: what it needs cannot be had.
// Threads  ServeCompletions: the process's first thread; it starts the second, and does not end it.
// Owns     the caller's descriptor until its call is made.
// See      host/cachefiles/completer.h

#ifndef HOST_CACHEFILES_COMPLETION_SERVICE_H_
#define HOST_CACHEFILES_COMPLETION_SERVICE_H_

#include <sys/types.h>

#include <functional>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"

namespace host {

// A copy of a descriptor of a thread; errno when there is none.
cachecore::UniqueFd DescriptorOf(pid_t thread, int fd);

// Until no process is under the filter.  The process is to end then, also after an error: nothing
// was served.  `ready`: a call that is stopped from now on is answered.
cachecore::Status ServeCompletions(int listener, const std::function<void()>& ready);

}  // namespace host

#endif  // HOST_CACHEFILES_COMPLETION_SERVICE_H_
