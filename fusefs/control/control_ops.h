// ControlOps: what the operator's requests do.
//
// Model    a request is decoded, done and its answer encoded; cachecore/protocol/control_messages.h
//          has the operations and their fields.
// Errors   every bad request gets {"ok":false,...} with a sentence.
// Threads  thread-safe; acquire and verify block until the fetcher answers, their time is up
//          or Cancel is called.

#ifndef FUSEFS_CONTROL_CONTROL_OPS_H_
#define FUSEFS_CONTROL_CONTROL_OPS_H_

#include <functional>
#include <nlohmann/json.hpp>
#include <stop_token>
#include <string>

#include "cachecore/cache/cache.h"
#include "cachecore/protocol/control_messages.h"
#include "fusefs/control/cache_ops.h"
#include "fusefs/device/device_server.h"
#include "fusefs/server/fuse_server.h"
#include "fusefs/server/grants.h"
#include "fusefs/server/mounted_objects.h"

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
    std::function<nlohmann::json()> describe_limits;
    // Null without a cachefiles device.
    MountedObjects* mounted = nullptr;
    std::function<nlohmann::json()> describe_cachefiles = nullptr;
    // Before an object is acquired.
    std::function<cachecore::Status(const GrantName&)> admit = nullptr;
    // After an `admit` that was OK: it is acquired and granted, or not.
    std::function<void(const GrantName&)> admitted = nullptr;
    // Null: nothing goes on with what is counted.
    cachecore::Totals* totals = nullptr;
  };

  explicit ControlOps(Parts parts);
  // `peer`: the caller's connection, or -1.  What waits for a mount ends with it.
  std::string Handle(const std::string& request, int peer = -1);
  // Ends what waits, and what will, with ECANCELED: the daemon stops.
  void Cancel() { stop_.request_stop(); }

 private:
  // What has asked: its connection, and its process.
  struct Caller {
    int connection = -1;
    cachecore::PidStamp process;
  };

  nlohmann::json Answer(const cachecore::control::Request& request, const Caller& caller);
  nlohmann::json Status(const cachecore::control::Request& request);
  nlohmann::json Acquire(const cachecore::control::Request& request, const Caller& caller);
  nlohmann::json AcquireAdmitted(const cachecore::control::Request& request, const Caller& caller);
  // Before and after the acquisition for an EROFS mount by `fsid`.
  cachecore::Status ClaimForMount(const cachecore::control::Request& request, const Caller& caller);
  nlohmann::json Mounted(const cachecore::control::Request& request, const Caller& caller);
  nlohmann::json Keep(const cachecore::control::Request& request);
  nlohmann::json Release(const cachecore::control::Request& request, const Caller& caller);
  nlohmann::json Verify(const cachecore::control::Request& request);
  nlohmann::json Shut(const cachecore::control::Request& request);
  // Blocks until the fetcher answers, unless the object is known.
  cachecore::Result<cachecore::ObjectInfo> AcquireObject(const cachecore::control::Request& request,
                                                         const Caller& caller);

  const Parts parts_;
  CacheOps cache_ops_;
  const int64_t started_unix_;
  std::stop_source stop_;
};

}  // namespace fusefs

#endif  // FUSEFS_CONTROL_CONTROL_OPS_H_
