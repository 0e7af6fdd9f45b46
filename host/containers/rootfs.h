// Rootfs: writable root file systems on images, made, mounted again and removed.
//
// Model    an overlay of the image's EROFS mount and a directory for what is written.  All of an
//          image's overlays share one EROFS mount, an ordinary mount of `holdfast mount`, which the
//          last of them takes with it.  A command first clears away what dead ones have left.
// Errors   one line that names the root file system or the image and, where there is one, the cure;
//          nothing stays after an error.
// Threads  thread-safe: root file systems and their owners change under the lock of the instance's
//          root file systems; that lock is held alone while one is mounted, since a
//          mount may wait for a registry.
// Crash    what is half made, and what was made for a run that is dead, goes with the next call.
// See      docs/containers.md

#ifndef HOST_CONTAINERS_ROOTFS_H_
#define HOST_CONTAINERS_ROOTFS_H_

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "host/containers/rootfs_record.h"
#include "host/containers/runtime_bundle.h"
#include "host/instance/instance.h"
#include "host/registries/registry_options.h"

namespace host {

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
// `timeout`, here and below, is for the waits for other commands.
cachecore::Status RemoveRootfs(const Instance& instance, const std::string& name, bool force,
                               std::chrono::milliseconds timeout);
// Removes what goes with a run; the caller holds it by `held`.
cachecore::Status RemoveOwnRootfs(const Instance& instance, const std::string& name,
                                  cachecore::UniqueFd held, std::chrono::milliseconds timeout);
// Clears away what dead commands have left.
cachecore::Status SweepRootfs(const Instance& instance, std::chrono::milliseconds timeout);

}  // namespace host

#endif  // HOST_CONTAINERS_ROOTFS_H_
