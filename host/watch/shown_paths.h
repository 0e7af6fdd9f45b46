// ShownPaths: where an object can be seen: the mount point of a file system, the path of a file.
//
// Threads  one thread only.
// Cost     reads the mount records, at most once a second.

#ifndef HOST_WATCH_SHOWN_PATHS_H_
#define HOST_WATCH_SHOWN_PATHS_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cachecore/base/clock.h"
#include "host/instance/instance.h"

namespace host {

class ShownPaths {
 public:
  explicit ShownPaths(const Instance& instance) : instance_(instance) {}
  // None for an object without a mount.
  std::vector<std::string> Of(const std::string& volume, const std::string& object);

 private:
  const Instance& instance_;
  std::map<std::pair<std::string, std::string>, std::vector<std::string>> paths_;
  cachecore::Duration read_at_{-1};
};

}  // namespace host

#endif  // HOST_WATCH_SHOWN_PATHS_H_
