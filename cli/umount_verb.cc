#include <sys/mount.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <optional>
#include <string>

#include "cli/bounded_call.h"
#include "cli/command.h"
#include "cli/forced_umount.h"
#include "cli/instance_control.h"
#include "cli/mount_point.h"
#include "cli/object_lease.h"
#include "cli/own_mounts.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

struct UmountOptions {
  std::string root = DefaultRoot();
  std::string instance;  // "": all.
  std::string mount_point;
  bool keep = false;
  bool lazy = false;
  bool force = false;
};

// For what may hang.
constexpr std::chrono::milliseconds kRealPathTimeout{1000};
constexpr std::chrono::milliseconds kForcedLockTimeout{500};

// The real path is asked last: realpath(3) may wait on, or fail at, a file system that is dead.
// Sets `*found_at` to the path that led to it.
std::optional<OwnedMount> FindByPath(const std::string& root, const std::string& path,
                                     std::string* found_at) {
  const Result<std::vector<MountEntry>> table = ReadMountTable();
  if (!table.ok()) return std::nullopt;
  *found_at = path;
  std::optional<OwnedMount> owned = FindOwned(root, path, *table);
  if (owned) return owned;
  const Result<std::string> outside = PathWithoutEntering(path);
  if (outside.ok()) owned = FindOwned(root, *found_at = *outside, *table);
  if (owned) return owned;
  const auto real_path = [&path]() -> Result<std::string> {
    const std::unique_ptr<char, void (*)(void*)> real(realpath(path.c_str(), nullptr), std::free);
    if (!real) return Status::FromErrno(errno, path);
    return std::string(real.get());
  };
  const Result<std::string> real = CallInChild(real_path, Deadline(kRealPathTimeout));
  if (!real.ok()) return std::nullopt;
  return FindOwned(root, *found_at = *real, *table);
}

Status NotOurs(const UmountOptions& options) {
  const std::string& path = options.mount_point;
  const Result<std::string> real = PathWithoutEntering(path);
  const Result<std::vector<MountEntry>> table = ReadMountTable();
  if (real.ok() && table.ok()) {
    if (const MountEntry* entry = FindMount(*table, *real)) {
      return Status(EINVAL, path + " was not mounted by holdfast: " + entry->type + " from " +
                                entry->source + " is mounted there; use umount");
    }
  }
  return Status(EINVAL, path + " is not mounted" +
                            (options.instance.empty() ? "" : " by instance " + options.instance) +
                            " (holdfast status lists the mounts)");
}

// A mount that something else uses is not the user's to end without a word.
Status Unmount(const Instance& instance, const OwnMount& mount, bool lazy) {
  const std::string& path = mount.entry.mount_point;
  const bool is_alive = mount.state == MountState::kMounted;
  const std::string others = lazy || !is_alive ? "" : DescribeOtherUsers(instance, mount);
  if (!others.empty()) {
    return Status(EBUSY, path + " is still in use: " + others +
                             "; end that first, or detach it here with --lazy, which leaves its "
                             "file system to the last of its users");
  }
  if (umount2(path.c_str(), UMOUNT_NOFOLLOW) == 0) return {};
  if (errno != EBUSY) return Status::FromErrno(errno, "unmount " + path);
  if (!lazy) {
    const std::string holders = DescribeHolders({mount.entry.device});
    return Status(EBUSY, path + " is busy" + (holders.empty() ? "" : ", " + holders) +
                             "; end its users, or detach it at once with --lazy");
  }
  if (umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) return {};
  return Status::FromErrno(errno, "detach " + path);
}

// Why the mount can't be unmounted at `path`, the one that was found for it.
Status CheckReachable(const OwnMount& mount, const std::string& path) {
  if (mount.state == MountState::kMounting) {
    return Status(EBUSY, path + " is being mounted by process " +
                             std::to_string(mount.record.claimed_by) + "; wait for it or end it");
  }
  if (mount.state == MountState::kGone) return {};
  if (!mount.is_here) {
    return Status(EBUSY, path + " is mounted in another mount namespace only, on " +
                             mount.entry.mount_point + "; unmount it there");
  }
  ASSIGN_OR_RETURN(const std::vector<MountEntry> table, ReadMountTable());
  const MountEntry* top = FindMount(table, mount.entry.mount_point);
  if (top != nullptr && top->id != mount.entry.id) {
    return Status(EBUSY, top->type + " from " + top->source + " is mounted over " +
                             mount.entry.mount_point + "; umount that first");
  }
  if (mount.record.mount_point == path && mount.entry.mount_point != path) {
    return Status(EINVAL, path + " has moved; it is mounted on " + mount.entry.mount_point +
                              " now: holdfast umount " + mount.entry.mount_point);
  }
  return {};
}

Status RunUmountLocked(const UmountOptions& options, const OwnedMount& owned,
                       const std::string& path) {
  const Instance& instance = owned.instance;
  const MountRecord& record = owned.mount.record;
  RETURN_IF_ERROR(CheckReachable(owned.mount, path));
  // Who goes on using it after a lazy unmount looks names up in it.
  const bool keeps_name = options.lazy && owned.mount.state == MountState::kMounted &&
                          (!DescribeOtherUsers(instance, owned.mount).empty() ||
                           !DescribeHolders({owned.mount.entry.device}).empty());
  if (owned.mount.state == MountState::kGone) {
    std::cerr << "holdfast: " << record.mount_point << " was no longer mounted\n";
  } else if (!options.force) {
    RETURN_IF_ERROR(Unmount(instance, owned.mount, options.lazy));
  }
  if (options.force) return ForceUmount(owned);
  RemoveMountRecord(instance, record);
  ASSIGN_OR_RETURN(const std::vector<MountRecord> others, LiveMounts(instance));
  if (!keeps_name) ReleaseObject(instance, record, others);
  if (options.keep || !others.empty() || IsRunElsewhere(instance)) return {};
  const Status stopped = StopInstance(instance);
  if (stopped.error() != EBUSY) return stopped;
  std::cerr << "holdfast: " << record.mount_point << " is detached but still in use; instance "
            << instance.name() << " goes on (holdfast stop --instance " << instance.name()
            << " ends it after its last user): " << stopped.message() << "\n";
  return {};
}

int RunUmount(const UmountOptions& options) {
  const Result<Instance> named =
      Instance::Make(options.root, options.instance.empty() ? "default" : options.instance);
  if (!named.ok()) return Fail(named.status(), kExitUsage);
  const Status allowed = RequireRoot("unmounting");
  if (!allowed.ok()) return Fail(allowed);
  std::string path;
  const std::optional<OwnedMount> found = FindByPath(options.root, options.mount_point, &path);
  if (!found || (!options.instance.empty() && found->instance.name() != options.instance)) {
    return Fail(NotOurs(options));
  }
  const Result<UniqueFd> lock = options.force
                                    ? LockInstance(found->instance, Deadline(kForcedLockTimeout))
                                    : LockInstance(found->instance);
  // A command that waits for this very instance may hold it; what it waits for is to end.
  if (!lock.ok() && !(options.force && lock.status().error() == ETIMEDOUT)) {
    return Fail(lock.status());
  }
  // Somebody else may have unmounted it while we waited for the lock.
  const Result<std::vector<MountEntry>> table = ReadMountTable();
  if (!table.ok()) return Fail(table.status());
  const std::optional<OwnedMount> owned = FindOwned(options.root, path, *table);
  if (!owned || owned->instance.name() != found->instance.name()) return Fail(NotOurs(options));
  const Status status = RunUmountLocked(options, *owned, path);
  return status.ok() ? kExitOk : Fail(status);
}

}  // namespace

void AddUmount(CLI::App* app, int* exit_code) {
  const auto options = std::make_shared<UmountOptions>();
  app->add_option("MOUNTPOINT", options->mount_point, "What holdfast mount was given")
      ->required()
      ->type_name("");
  app->add_flag("--keep", options->keep, "Leave the instance running without its last mount");
  app->add_flag("--lazy", options->lazy, "Detach a busy mount now; its users go on with it");
  app->add_flag("--force", options->force,
                "Detach it even when its daemons are dead or hang; who waits for it gets EIO")
      ->excludes("--keep")
      ->excludes("--lazy");
  app->add_option("--instance", options->instance, "Only a mount of this instance")
      ->type_name("NAME");
  app->add_option("--root", options->root,
                  "Where all instances' files are (default: $HOLDFAST_ROOT or /)")
      ->type_name("DIR");
  app->callback([options, exit_code] { *exit_code = RunUmount(*options); });
}

}  // namespace cli
