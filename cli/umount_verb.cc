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
#include "cli/image_mount.h"
#include "cli/instance_control.h"
#include "cli/mount_point.h"
#include "cli/object_lease.h"

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
std::optional<OwnedRecord> FindByPath(const std::string& root, const std::string& path) {
  std::optional<OwnedRecord> owned = FindRecord(root, path);
  if (owned) return owned;
  const Result<std::string> outside = PathWithoutEntering(path);
  if (outside.ok()) owned = FindRecord(root, *outside);
  if (owned) return owned;
  const auto real_path = [&path]() -> Result<std::string> {
    const std::unique_ptr<char, void (*)(void*)> real(realpath(path.c_str(), nullptr), std::free);
    if (!real) return Status::FromErrno(errno, path);
    return std::string(real.get());
  };
  const Result<std::string> real = CallInChild(real_path, Deadline(kRealPathTimeout));
  return real.ok() ? FindRecord(root, *real) : std::nullopt;
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

// Takes the mount away; *still_used tells of a lazy one that others hold.
Status Unmount(const MountRecord& record, bool lazy, bool* still_used) {
  const char* path = record.mount_point.c_str();
  if (umount2(path, UMOUNT_NOFOLLOW) == 0) return {};
  if (errno != EBUSY) return Status::FromErrno(errno, "unmount " + record.mount_point);
  const std::string holders = DescribeHolders(record.mount_point);
  if (!lazy) {
    return Status(EBUSY, record.mount_point + " is busy" + (holders.empty() ? "" : ", " + holders) +
                             "; end its users, or detach it at once with --lazy");
  }
  if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) != 0) {
    return Status::FromErrno(errno, "detach " + record.mount_point);
  }
  *still_used = true;
  return {};
}

Status RunUmountLocked(const UmountOptions& options, const OwnedRecord& owned) {
  const Instance& instance = owned.instance;
  const MountRecord& record = owned.record;
  ASSIGN_OR_RETURN(const std::vector<MountEntry> table, ReadMountTable());
  const MountEntry* entry = FindMount(table, record.mount_point);
  bool still_used = false;
  if (!record.mounted && record.IsAlive(table)) {
    return Status(EBUSY, record.mount_point + " is being mounted by process " +
                             std::to_string(record.claimed_by) + "; wait for it or end it");
  }
  if (entry == nullptr) {
    std::cerr << "holdfast: " << record.mount_point << " was no longer mounted\n";
  } else if (!IsOwnMount(*entry)) {
    return Status(EBUSY, entry->type + " from " + entry->source + " is mounted over " +
                             record.mount_point + "; umount that first");
  } else if (!options.force) {
    RETURN_IF_ERROR(Unmount(record, options.lazy, &still_used));
  }
  if (options.force) return ForceUmount(owned);
  RemoveMountRecord(instance, record.mount_point);
  ASSIGN_OR_RETURN(const std::vector<MountRecord> others, LiveMounts(instance));
  ReleaseObject(instance, record, others);
  if (options.keep || !others.empty() || IsRunElsewhere(instance)) return {};
  if (still_used) {
    std::cerr << "holdfast: " << record.mount_point << " is detached but still in use; instance "
              << instance.name() << " goes on (holdfast stop --instance " << instance.name()
              << " ends it)\n";
    return {};
  }
  return StopInstance(instance);
}

int RunUmount(const UmountOptions& options) {
  const Result<Instance> named =
      Instance::Make(options.root, options.instance.empty() ? "default" : options.instance);
  if (!named.ok()) return Fail(named.status(), kExitUsage);
  const Status allowed = RequireRoot("unmounting");
  if (!allowed.ok()) return Fail(allowed);
  const std::optional<OwnedRecord> found = FindByPath(options.root, options.mount_point);
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
  const std::optional<OwnedRecord> owned = FindRecord(options.root, found->record.mount_point);
  if (!owned || owned->instance.name() != found->instance.name()) return Fail(NotOurs(options));
  const Status status = RunUmountLocked(options, *owned);
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
