// Rootfs: writable root file systems on images, made, mounted again and removed.
//
// Model    an overlay of the image's EROFS mount and a directory for what is written.  All of an
//          image's overlays share one EROFS mount, an ordinary mount of `holdfast mount`, which the
//          last of them takes with it.  A command first clears away what dead ones have left.
// Errors   one line that names the root file system or the image and, where there is one, the cure;
//          nothing stays after an error.
// Threads  thread-safe: what is there and whose it is changes under the lock of the instance's root
//          file systems; while one is mounted it is held alone, since that may wait for a registry.
// Crash    what is half made, and what was made for a run that is dead, goes with the next call.
// See      docs/containers.md

#ifndef CLI_ROOTFS_H_
#define CLI_ROOTFS_H_

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "cachecore/status.h"
#include "cachecore/unique_fd.h"
#include "cli/instance.h"
#include "cli/registry_options.h"
#include "cli/rootfs_record.h"
#include "cli/runtime_bundle.h"

namespace cli {

struct RootfsRequest {
  Instance instance;
  std::string name;
  std::string reference;
  RegistryAccess access;
  std::string upper;  // "": a directory beside the record.
  bool tmpfs = false;
  bool goes_with_run = false;
  std::chrono::milliseconds timeout;  // For all of it.
  BundleOptions bundle;
};

// Makes it and its bundle; it is this process's until the result is closed.
cachecore::Result<cachecore::UniqueFd> CreateRootfs(const RootfsRequest& request);
// Mounts one that is not mounted, as after a reboot; nothing to do is no error.
cachecore::Status MountRootfs(const Instance& instance, const std::string& name,
                              std::chrono::milliseconds timeout);
// EBUSY while processes use it, or another holdfast has it, unless `force` ends the container.
cachecore::Status RemoveRootfs(const Instance& instance, const std::string& name, bool force);
// Removes what goes with a run; the caller holds it by `held`.
cachecore::Status RemoveOwnRootfs(const Instance& instance, const std::string& name,
                                  cachecore::UniqueFd held);
// Clears away what dead commands have left.
cachecore::Status SweepRootfs(const Instance& instance);

}  // namespace cli

#endif  // CLI_ROOTFS_H_
