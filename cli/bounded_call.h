// CallInChild: runs a call that may wait for a fetcher in a process that can be killed.
//
// Model    reading a FUSE file and mounting an image on one wait for bytes and take no deadline.  In
//          a child they can be ended: a reader killed with SIGKILL leaves at once.
// Errors   `call`'s own; ETIMEDOUT and EINTR as of the wait; EIO when the child died.
// Threads  fork(2)s: the caller has no other thread that matters to `call`.

#ifndef CLI_BOUNDED_CALL_H_
#define CLI_BOUNDED_CALL_H_

#include <functional>
#include <string>

#include "cachecore/status.h"
#include "cachecore/unique_fd.h"
#include "cli/deadline.h"

namespace cli {

// What a call in a child gives back.
struct ChildAnswer {
  std::string value;
  cachecore::UniqueFd fd;  // Not valid: none.
};

// What `call` returned.  Its changes to memory are lost with the child, those to the system are
// not; after an error other than its own, it may have been ended at any point.
cachecore::Result<std::string> CallInChild(
    const std::function<cachecore::Result<std::string>()>& call, const Deadline& deadline);
// The same for a call that opens something: its descriptor becomes ours.
cachecore::Result<ChildAnswer> OpenInChild(
    const std::function<cachecore::Result<ChildAnswer>()>& call, const Deadline& deadline);

}  // namespace cli

#endif  // CLI_BOUNDED_CALL_H_
