// Control client: one question to holdfastd's control socket and its answer.
//
// Model    one connection carries one JSON object on a line each way; then the daemon closes it.
// Errors   ENOENT, ECONNREFUSED (nobody listens), ETIMEDOUT, EINTR, EPROTO (the answer is no JSON
//          object); an answer with "ok":false becomes its errno and sentence.
// Threads  thread-safe: no state.  Blocks until the deadline at most.
// See      docs/protocol.md, control socket

#ifndef CLI_CONTROL_CLIENT_H_
#define CLI_CONTROL_CLIENT_H_

#include <nlohmann/json.hpp>
#include <string>

#include "cachecore/status.h"
#include "cli/deadline.h"

namespace cli {

// `answered`, where it is given, tells a daemon's refusal from a daemon that did not answer.
cachecore::Result<nlohmann::json> CallControl(const std::string& socket_path,
                                              const nlohmann::json& request,
                                              const Deadline& deadline, bool* answered = nullptr);

}  // namespace cli

#endif  // CLI_CONTROL_CLIENT_H_
