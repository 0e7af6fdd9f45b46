// Control client: one question to holdfastd's control socket and its answer.
//
// Model    one connection carries one JSON object on a line each way; then the daemon closes it.
// Errors   ENOENT, ECONNREFUSED (no process listens), ETIMEDOUT, EINTR, EPROTO (the answer is no
//          JSON object); an answer with "ok":false becomes its errno and sentence.
// Threads  thread-safe: no state.  Blocks until the deadline at most.
// See      docs/protocol.md "The control socket"

#ifndef HOST_INSTANCE_CONTROL_CLIENT_H_
#define HOST_INSTANCE_CONTROL_CLIENT_H_

#include <nlohmann/json.hpp>
#include <string>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"

namespace host {

// `answered`, where it is given, tells a daemon's refusal from a daemon that did not answer.
cachecore::Result<nlohmann::json> CallControl(const std::string& socket_path,
                                              const nlohmann::json& request,
                                              const cachecore::Deadline& deadline,
                                              bool* answered = nullptr);

}  // namespace host

#endif  // HOST_INSTANCE_CONTROL_CLIENT_H_
