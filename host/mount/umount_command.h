// UmountCommand: what `holdfast umount` does, for its verb and for other commands that unmount.
//
// Errors   EINVAL for a wrong option or a path that is no Holdfast mount; EBUSY names the users.
// Threads  one thread only.
// See      holdfast(1) "holdfast umount".

#ifndef HOST_MOUNT_UMOUNT_COMMAND_H_
#define HOST_MOUNT_UMOUNT_COMMAND_H_

#include <CLI/CLI.hpp>
#include <chrono>
#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "host/instance/instance_options.h"

namespace host {

struct UmountOptions {
  std::string root = DefaultRoot();
  std::string instance;  // "": all.
  std::string mount_point;
  bool keep = false;
  bool lazy = false;
  bool force = false;
  bool keep_persistent = false;
  bool json = false;
  std::string timeout = kLockTimeoutText;

  void AddTo(CLI::App* app);
};

// What is wrong with the command line; else how long to wait for the lock.
cachecore::Result<std::chrono::milliseconds> CheckOptions(const UmountOptions& options);
cachecore::Status UmountChecked(const UmountOptions& options, const cachecore::Deadline& deadline);

// With the arguments of a command line; the deadline counts as well as --timeout.
cachecore::Status UmountByArguments(const std::vector<std::string>& arguments,
                                    const cachecore::Deadline& deadline);

}  // namespace host

#endif  // HOST_MOUNT_UMOUNT_COMMAND_H_
