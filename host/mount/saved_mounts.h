// SavedMounts: what `holdfast mount --persist` has mounted, brought back after a reboot.
//
// Model    a record of a mount (host/mounts/saved_mount.h) becomes the options of `holdfast mount`
//          again, with the query that the source file has.  Each of several is mounted by a process
//          of its own, so that one that waits for its origin holds up no other.
// Errors   those of `holdfast mount`; of a bad record EBADMSG or EPERM.
// Threads  one thread only; RestoreMount changes this process's environment.
// See      holdfast(1) "holdfast mounts"; docs/semantics.md "Mounts that come back"

#ifndef HOST_MOUNT_SAVED_MOUNTS_H_
#define HOST_MOUNT_SAVED_MOUNTS_H_

#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "host/instance/instance.h"
#include "host/mounts/mount_record.h"
#include "host/mounts/saved_mount.h"

namespace host {

// Records a mount that has just been made and recorded as `record`, with what `save` tells of its
// command line.  Without `save` it removes the record of another image at that mount point, and
// says so on stderr.  REQUIRES: LockInstance.
cachecore::Status SaveMount(const Instance& instance, const std::optional<SavedMount>& save,
                            const MountRecord& record);

// kDead: mounted, and nothing serves it.
enum class SavedState { kMounted, kDead, kMounting, kNotMounted, kBad };

struct SavedMountState {
  Instance instance;
  SavedMount mount;  // Of kBad with nothing in it.
  SavedState state;
  std::string trouble = "";  // Of kBad.
};

// By instance; "" for all of them.
cachecore::Result<std::vector<SavedMountState>> ListSaved(const std::string& root,
                                                          const std::string& instance);
nlohmann::json SavedToJson(const std::vector<SavedMountState>& mounts);
std::string SavedToText(const std::vector<SavedMountState>& mounts);

// Mounts one, and starts its instance if need be.  OK also when it is mounted already.
cachecore::Status RestoreMount(const Instance& instance, const std::string& mount_point,
                               std::chrono::milliseconds timeout);

struct RestoreEnd {
  std::map<std::string, std::string> failed;  // Why, by mount point.
  std::vector<std::string> bad;               // What is wrong with records.
};
// Mounts all that are not mounted, several at once, each within `timeout`.  Begins with none after
// `begin_until`: those have failed.
cachecore::Result<RestoreEnd> RestoreMounts(const std::string& root, const std::string& instance,
                                            std::chrono::milliseconds timeout,
                                            const cachecore::Deadline& begin_until);
// Unmounts all that are mounted, the innermost first; they come back with the next RestoreMounts.
// Says on stderr which are in use and stay, and returns EBUSY then.
cachecore::Status UnmountSaved(const std::string& root, const std::string& instance,
                               const cachecore::Deadline& deadline);

}  // namespace host

#endif  // HOST_MOUNT_SAVED_MOUNTS_H_
