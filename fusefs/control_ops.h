// ControlOps: what the operator's requests do.
//
// Model    a request is a JSON object with "op": ping, status, acquire, keep, release, shut,
//          verify, stop.  See docs/protocol.md "The control socket" for the fields.
// Errors   every bad request gets {"ok":false,...} with a sentence.
// Threads  thread-safe; acquire and verify block until the fetcher answers, their time is up
//          or Cancel is called.

#ifndef FUSEFS_CONTROL_OPS_H_
#define FUSEFS_CONTROL_OPS_H_

#include <functional>
#include <nlohmann/json.hpp>
#include <stop_token>
#include <string>

#include "cachecore/cache.h"
#include "fusefs/device_server.h"
#include "fusefs/fuse_server.h"
#include "fusefs/grants.h"

namespace fusefs {

class ControlOps {
 public:
  struct Parts {
    cachecore::Cache* cache;
    DeviceServer* device;
    FuseServer* fuse;
    Grants* grants;
    std::string fuse_dir;
    bool fail_on_detach;
    std::function<void()> stop;
  };

  explicit ControlOps(Parts parts);
  std::string Handle(const std::string& request);
  // Ends what waits, and what will, with ECANCELED: the daemon stops.
  void Cancel() { stop_.request_stop(); }

 private:
  nlohmann::json Status(const nlohmann::json& request);
  nlohmann::json Acquire(const nlohmann::json& request);
  nlohmann::json Keep(const nlohmann::json& request);
  nlohmann::json Release(const nlohmann::json& request);
  nlohmann::json Verify(const nlohmann::json& request);
  nlohmann::json Shut(const nlohmann::json& request);
  // Blocks until the fetcher answers, unless the object is known.
  cachecore::Result<cachecore::ObjectInfo> AcquireObject(const nlohmann::json& request);

  const Parts parts_;
  const int64_t started_unix_;
  std::stop_source stop_;
};

}  // namespace fusefs

#endif  // FUSEFS_CONTROL_OPS_H_
