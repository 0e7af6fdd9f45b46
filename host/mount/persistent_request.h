// persistent_request: asks the daemon again while it dies, or while another try may go better.
//
// Model    each try has what is left of the time.  Without an answer the daemon has died in the
//          middle of the request, and its successor is asked, as long as a supervisor or a service
//          manager starts one.  The request must be harmless when it is asked twice.
// Errors   those of the last try.
// Threads  one thread only.
// See      docs/protocol.md "The control socket"

#ifndef HOST_MOUNT_PERSISTENT_REQUEST_H_
#define HOST_MOUNT_PERSISTENT_REQUEST_H_

#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "host/instance/instance.h"

namespace host {

// Whether the origin or the network may do better in a while.  The fetcher's refusals, such as
// EACCES and ENOENT, are certain, and so is what it calls EIO.
bool MayPass(int error);

// `question` is told how much time is left, and may be called several times.
cachecore::Result<nlohmann::json> AskPersistently(
    const Instance& instance,
    const std::function<nlohmann::json(std::chrono::milliseconds left)>& question,
    const cachecore::Deadline& deadline);

}  // namespace host

#endif  // HOST_MOUNT_PERSISTENT_REQUEST_H_
