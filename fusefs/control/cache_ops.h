// CacheOps: the operator's requests about the cache itself: limits, pins, lists, removals.
//
// Model    as ControlOps, whose part it is.  An object is named by volume and cookie.
// Errors   a refusal with a sentence.  ENOENT: no such object.  EBUSY: a mount shows it, a reader
//          has it, or it is pinned.  EOPNOTSUPP: the program of a cachefiles device keeps this
//          cache.
// Threads  thread-safe.
// Crash    see Choices and Culler.
// See      docs/protocol.md "The control socket"

#ifndef FUSEFS_CONTROL_CACHE_OPS_H_
#define FUSEFS_CONTROL_CACHE_OPS_H_

#include <functional>
#include <nlohmann/json.hpp>

#include "cachecore/base/status.h"
#include "cachecore/cache/cache.h"
#include "cachecore/protocol/control_messages.h"
#include "fusefs/server/grants.h"

namespace fusefs {

class CacheOps {
 public:
  // `is_kept_by_us`: no program of a cachefiles device culls.
  CacheOps(cachecore::Cache* cache, Grants* grants, std::function<nlohmann::json()> describe_limits,
           bool is_kept_by_us);

  nlohmann::json Limit(const cachecore::control::Request& request);
  nlohmann::json SetPinned(const cachecore::control::Request& request, bool pinned);
  nlohmann::json List();
  nlohmann::json Remove(const cachecore::control::Request& request);

 private:
  // Unless this daemon keeps the cache's size.
  cachecore::Status CheckIsOurs() const;
  cachecore::Result<cachecore::ObjectInfo> Find(const cachecore::control::Request& request);
  cachecore::Status RemoveFound(const cachecore::control::Request& request,
                                cachecore::ObjectNumber number);

  cachecore::Cache* const cache_;
  Grants* const grants_;
  const std::function<nlohmann::json()> describe_limits_;
  const bool is_kept_by_us_;
};

}  // namespace fusefs

#endif  // FUSEFS_CONTROL_CACHE_OPS_H_
