// CallInChild: runs a call that may wait for a fetcher in a process that can be killed.
//
// Model    reading a FUSE file and mounting an image on one wait for bytes and take no deadline.
//          In a child they can be ended: a reader killed with SIGKILL leaves at once.
//          The child has no descriptor of the caller's but those that are named, and /dev/null as
//          its standard ones: one that cannot be killed keeps no lock and no pipe.
// Errors   `call`'s own; ETIMEDOUT and EINTR as of the wait; EIO when the child died.
// Threads  fork(2)s: the caller has no other thread that matters to `call`.

#ifndef CACHECORE_SYSTEM_BOUNDED_CALL_H_
#define CACHECORE_SYSTEM_BOUNDED_CALL_H_

#include <functional>
#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"

namespace cachecore {

// What a call in a child gives back.
struct ChildAnswer {
  std::string value;
  UniqueFd fd;  // Not valid: none.
};

// What `call` returned.  Its changes to memory are lost with the child, those to the system are
// not; after an error other than its own, it may have been ended at any point.  `kept`: the
// descriptors that it uses.
Result<std::string> CallInChild(const std::function<Result<std::string>()>& call,
                                const Deadline& deadline, std::vector<int> kept = {});
// The same for a call that opens something: its descriptor becomes the caller's.
Result<ChildAnswer> OpenInChild(const std::function<Result<ChildAnswer>()>& call,
                                const Deadline& deadline, std::vector<int> kept = {});

}  // namespace cachecore

#endif  // CACHECORE_SYSTEM_BOUNDED_CALL_H_
