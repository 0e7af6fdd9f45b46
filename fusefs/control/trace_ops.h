// TraceOps: what waits and has waited, for `holdfast trace` and `holdfast report`.
//
// Model    a question and an answer: who follows asks again, and says what it has seen.  Nothing is
//          kept of a follower.
// Threads  thread-safe.
// Cost     the engine's lock, for as long as it takes to look at the reads that wait, and to copy
//          1,000 of them and of those that have ended.
// See      docs/protocol.md "The control socket"

#ifndef FUSEFS_CONTROL_TRACE_OPS_H_
#define FUSEFS_CONTROL_TRACE_OPS_H_

#include <cstdint>
#include <nlohmann/json.hpp>

#include "cachecore/cache/cache.h"
#include "cachecore/protocol/control_messages.h"

namespace fusefs {

// What is known of one object's past: see cachecore::ObjectHistory.  `started`: the daemon, seconds
// since 1970.
nlohmann::json TellHistory(cachecore::Cache* cache, const cachecore::control::Request& request,
                           int64_t started);
nlohmann::json TraceReads(cachecore::Cache* cache, const cachecore::control::Request& request);

}  // namespace fusefs

#endif  // FUSEFS_CONTROL_TRACE_OPS_H_
