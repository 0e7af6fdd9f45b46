// LiveVerify: `holdfast verify NAME`: a running daemon reads what is present of an object again.
//
// Model    NAME is a mount point, or VOLUME/OBJECT.  The object is gone through in windows, each
//          one question to the daemon, which makes absent what is wrong and has it fetched again.
// Errors   ENOENT nothing of that name; EOPNOTSUPP it has no digest; those of the control socket.
// Threads  one thread only.  Blocks for as long as it takes to read and fetch.

#ifndef HOST_SERVICE_LIVE_VERIFY_H_
#define HOST_SERVICE_LIVE_VERIFY_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include "cachecore/base/status.h"
#include "host/instance/instance.h"

namespace host {

struct LiveVerifyReport {
  std::string name;  // VOLUME/OBJECT.
  std::string digest;
  uint64_t size_bytes = 0;
  uint64_t checked_bytes = 0;
  uint64_t wrong_bytes = 0;
  uint64_t healed_bytes = 0;
  std::string error;  // Why not all of the wrong ones are healed.
};

// `patience`: how long to wait in each window for what is fetched again.  `progress` is told how
// many bytes of the object are behind, after each window.
cachecore::Result<LiveVerifyReport> LiveVerify(
    const Instance& instance, const std::string& name, std::chrono::milliseconds patience,
    const std::function<void(const LiveVerifyReport&, uint64_t done)>& progress);

}  // namespace host

#endif  // HOST_SERVICE_LIVE_VERIFY_H_
