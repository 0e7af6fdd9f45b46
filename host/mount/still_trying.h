// StillTrying: says on stderr why a command waits, after 3 seconds and then every 30 seconds.
//
// Model    one at a time lives, for as long as the command may wait for an origin or a registry.
// Threads  one thread only: the waits of cachecore/base/deadline.h call it.

#ifndef HOST_MOUNT_STILL_TRYING_H_
#define HOST_MOUNT_STILL_TRYING_H_

#include <functional>
#include <string>

#include "cachecore/base/clock.h"
#include "cachecore/base/deadline.h"

namespace host {

class StillTrying {
 public:
  // `cause` is asked each time there is a line to print.
  StillTrying(bool quiet, std::function<std::string()> cause);

 private:
  void Tick();

  const bool quiet_;
  const std::function<std::string()> cause_;
  cachecore::Duration due_;
  const cachecore::DuringWaits during_waits_;
};

}  // namespace host

#endif  // HOST_MOUNT_STILL_TRYING_H_
