// MountTable: what is mounted where, as this process sees it.
//
// Errors   every Status names the file.
// Threads  immutable.
// See      proc_pid_mountinfo(5)

#ifndef SNAPSHOTTER_MOUNT_TABLE_H_
#define SNAPSHOTTER_MOUNT_TABLE_H_

#include <set>
#include <string>

#include "cachecore/status.h"

namespace snapshotter {

class MountTable {
 public:
  static cachecore::Result<MountTable> Read();
  // Lines that can't be read are passed over.
  static MountTable Parse(const std::string& mountinfo);

  bool HasMountAt(const std::string& path) const { return points_.contains(path); }
  bool HasMountAtOrBelow(const std::string& path) const;

 private:
  std::set<std::string> points_;
};

}  // namespace snapshotter

#endif  // SNAPSHOTTER_MOUNT_TABLE_H_
