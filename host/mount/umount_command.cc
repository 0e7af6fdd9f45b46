#include "host/mount/umount_command.h"

#include <sys/mount.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <optional>
#include <string>

#include "cachecore/system/bounded_call.h"
#include "cachecore/system/trusted_path.h"
#include "host/content/image_file_system.h"
#include "host/instance/privileges.h"
#include "host/instance/settings.h"
#include "host/mounts/detached_mounts.h"
#include "host/mounts/fuse_release.h"
#include "host/mounts/layer_mounts.h"
#include "host/mounts/mount_point.h"
#include "host/mounts/object_cause.h"
#include "host/mounts/object_lease.h"
#include "host/mounts/own_mounts.h"
#include "host/mounts/saved_mount.h"
#include "host/service/forced_umount.h"
#include "host/service/instance_control.h"

namespace host {
namespace {

using cachecore::CallInChild;
using cachecore::Deadline;
using cachecore::FindMount;
using cachecore::MountEntry;
using cachecore::PathWithoutEntering;
using cachecore::ReadMountTable;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
using cachecore::WaitUntil;

// For what may hang.
constexpr std::chrono::milliseconds kRealPathTimeout{1000};
constexpr std::chrono::milliseconds kForcedLockTimeout{500};
// For reads that are being answered.
constexpr std::chrono::milliseconds kReadsEnd{2000};

// The real path is asked last: it may wait on, or fail at, a file system that is dead.
// Sets `*found_at` to the path that led to it.
Result<std::optional<OwnedMount>> FindByPath(const std::string& root, const std::string& path,
                                             std::string* found_at) {
  ASSIGN_OR_RETURN(const std::vector<MountEntry> table, ReadMountTable());
  *found_at = path;
  std::optional<OwnedMount> owned = FindOwned(root, path, table);
  if (owned) return owned;
  const Result<std::string> outside = PathWithoutEntering(path);
  if (outside.status().error() == EACCES) return outside.status();  // A link of another user's.
  if (outside.ok()) owned = FindOwned(root, *found_at = *outside, table);
  if (owned) return owned;
  const auto real_path = [&path] { return cachecore::TrustedRealPath(path); };
  const Result<std::string> real = CallInChild(real_path, Deadline(kRealPathTimeout));
  if (real.status().error() == EACCES) return real.status();
  if (real.ok()) owned = FindOwned(root, *found_at = *real, table);
  return owned;
}

Status NotOurs(const UmountOptions& options) {
  const std::string& path = options.mount_point;
  const Result<std::string> real = PathWithoutEntering(path);
  const Result<std::vector<MountEntry>> table = ReadMountTable();
  if (real.ok() && table.ok()) {
    if (const MountEntry* entry = FindMount(*table, *real)) {
      if (const std::optional<Instance> other = InstanceOf(*entry, *table)) {
        if (IsFuseTree(*other, *entry)) {
          return Status(EINVAL, path + " is the FUSE tree of instance " + other->name() +
                                    ", which its mounts need; it goes with the instance: "
                                    "holdfast stop" +
                                    other->Flags());
        }
        return Status(EINVAL, path + " is a mount of instance " + other->name() + ": " +
                                  CommandToFree(*other, *entry, *table));
      }
      return Status(EINVAL, path + " was not mounted by holdfast: " + entry->type + " from " +
                                entry->source + " is mounted there; use umount");
    }
  }
  return Status(EINVAL, path + " is not mounted" +
                            (options.instance.empty() ? "" : " by instance " + options.instance) +
                            " (holdfast status lists the mounts)");
}

// What --persist is to bring back, and is not mounted now.
Result<bool> ForgetUnmounted(const UmountOptions& options, const Deadline& deadline) {
  if (options.keep_persistent) return false;
  const Result<std::string> real = PathWithoutEntering(options.mount_point);
  for (const std::string& path : {options.mount_point, real.ok() ? *real : ""}) {
    for (const Instance& instance : Instance::List(options.root)) {
      if (!options.instance.empty() && instance.name() != options.instance) continue;
      if (!path.starts_with('/') || !ReadSavedMount(instance, path).ok()) continue;
      ASSIGN_OR_RETURN(const UniqueFd lock, LockInstance(instance, deadline));
      ASSIGN_OR_RETURN(const bool is_removed, RemoveSavedMount(instance, path));
      if (!is_removed) continue;
      std::cerr << "holdfast: " << path << " is not mounted, and does not come back any more\n";
      return true;
    }
  }
  return false;
}

// The kernel ends a file system on a loop device once its reads have ended, also those of readers
// that are gone, and holds up every sync(2) of the machine until then.
Status CheckReadsEnd(const Instance& instance, const OwnMount& mount) {
  if (!mount.entry.source.starts_with("/dev/loop") || IsConnectionDead(instance)) return {};
  Result<std::string> waiting = std::string();
  const auto ended = [&] {
    waiting = WaitingReadsOf(instance, mount.record);
    return !waiting.ok() || waiting->empty();
  };
  WaitUntil(ended, Deadline(kReadsEnd)).IgnoreError("what waits then is told");
  if (waiting.ok() && waiting->empty()) return {};
  return Status(EBUSY,
                mount.entry.mount_point + " is busy: " +
                    (waiting.ok() ? *waiting
                                  : "its daemon does not answer, and may have reads of it (" +
                                        waiting.status().message() + ")") +
                    "; end them with --force");
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
  const std::string holders = lazy ? DescribeHolders({mount.entry.device}) : "";
  if (is_alive && holders.empty()) RETURN_IF_ERROR(CheckReadsEnd(instance, mount));
  if (umount2(path.c_str(), UMOUNT_NOFOLLOW) == 0) return {};
  if (errno != EBUSY) return Status::FromErrno(errno, "unmount " + path);
  if (!lazy) {
    const std::string users = DescribeHolders({mount.entry.device});
    return Status(EBUSY, path + " is busy" + (users.empty() ? "" : ", " + users) +
                             "; end its users, or detach it at once with --lazy; --force ends "
                             "reads of it that wait");
  }
  if (umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) return {};
  return Status::FromErrno(errno, "detach " + path);
}

// Why the mount can't be unmounted at `path`, the one that was found for it.
Status CheckReachable(const Instance& instance, const OwnMount& mount, const std::string& path) {
  if (mount.state == MountState::kMounting) {
    return Status(EBUSY, path + " is being mounted by process " +
                             std::to_string(mount.record.claimed_by) + "; wait for it or end it");
  }
  if (mount.state == MountState::kGone) return {};
  if (!mount.is_here) {
    return Status(EBUSY, path + " is mounted in another mount namespace only, on " +
                             mount.entry.mount_point +
                             "; unmount it there: " + UmountCommand(instance, mount));
  }
  ASSIGN_OR_RETURN(const std::vector<MountEntry> table, ReadMountTable());
  const MountEntry* top = FindMount(table, mount.entry.mount_point);
  if (top != nullptr && top->id != mount.entry.id) {
    return Status(EBUSY, top->type + " from " + top->source + " is mounted over " +
                             mount.entry.mount_point + "; umount that first");
  }
  if (mount.record.mount_point == path && mount.entry.mount_point != path) {
    return Status(EINVAL, path + " has moved; it is mounted on " + mount.entry.mount_point +
                              " now: " + UmountCommand(instance, mount));
  }
  return {};
}

// A process that goes on using it without its mount looks names up in it.
bool IsNameInUse(const Instance& instance, const OwnMount& mount, bool lazy) {
  if (mount.state != MountState::kGone && (!lazy || mount.state != MountState::kMounted)) {
    return false;
  }
  if (mount.entry.device.empty()) return false;
  return !DescribeOtherUsers(instance, mount).empty() ||
         !DescribeHolders({mount.entry.device}).empty();
}

// What is known of a mount that umount(8) took away: its record tells what it was.
OwnMount WithEntry(OwnMount mount) {
  if (mount.state != MountState::kGone) return mount;
  mount.entry.mount_point = mount.record.mount_point;
  mount.entry.device = mount.record.superblock;
  mount.entry.type = mount.record.kind == "file" ? "fuse.holdfast" : mount.record.kind;
  mount.entry.id = mount.record.mount_id;
  return mount;
}

// Its users are found again by its device.
void RememberUsed(const Instance& instance, const OwnMount& mount) {
  MountRecord record = mount.record;
  record.superblock = mount.entry.device;
  record.mount_id = mount.entry.id;
  const Status status = RememberDetached(instance, record);
  if (!status.ok()) std::cerr << "holdfast: " << status.message() << "\n";
}

// Ends the instance, whose last mount is gone.
Status EndWithLast(const Instance& instance, const std::string& mount_point) {
  if (IsRunElsewhere(instance)) return {};
  // Its client has the device open, and mounts come and go.
  const Result<bool> has_device = HasCachefilesDevice(instance);
  if (!has_device.ok()) {
    std::cerr << "holdfast: " << mount_point << " is unmounted; instance " << instance.name()
              << " goes on (holdfast stop" << instance.Flags()
              << " ends it): " << has_device.status().message() << "\n";
  }
  if (!has_device.ok() || *has_device) return {};
  const Status stopped = StopInstance(instance);
  if (stopped.error() != EBUSY) return stopped;
  std::cerr << "holdfast: " << mount_point << " is detached but still in use; instance "
            << instance.name() << " goes on (holdfast stop" << instance.Flags()
            << " ends it after its last user): " << stopped.message() << "\n";
  return {};
}

Status RunUmountLocked(const UmountOptions& options, const OwnedMount& owned,
                       const std::string& path) {
  const Instance& instance = owned.instance;
  const MountRecord& record = owned.mount.record;
  RETURN_IF_ERROR(CheckReachable(instance, owned.mount, path));
  const OwnMount mount = WithEntry(owned.mount);
  const bool keeps_name = IsNameInUse(instance, mount, options.lazy);
  if (owned.mount.state == MountState::kGone) {
    std::cerr << "holdfast: " << record.mount_point << " was no longer mounted\n";
  } else if (!options.force) {
    RETURN_IF_ERROR(Unmount(instance, owned.mount, options.lazy));
  }
  if (options.force) return ForceUmount({instance, mount});
  if (keeps_name) RememberUsed(instance, mount);
  RemoveMountRecord(instance, record);
  ReleaseUnusedLayers(instance, keeps_name ? &mount.record : nullptr);
  ASSIGN_OR_RETURN(const std::vector<MountRecord> others, LiveMounts(instance));
  if (!keeps_name) ReleaseObject(instance, record, others);
  if (options.keep || !others.empty()) return {};
  return EndWithLast(instance, record.mount_point);
}

// A mount that was detached while a process used it, whose reads wait.  False: there is none here.
Result<bool> ForceDetached(const UmountOptions& options, const Deadline& deadline) {
  const Result<std::string> real = PathWithoutEntering(options.mount_point);
  ASSIGN_OR_RETURN(const std::vector<MountEntry> table, ReadMountTable());
  for (const Instance& instance : Instance::List(options.root)) {
    if (!options.instance.empty() && instance.name() != options.instance) continue;
    std::vector<MountRecord> images = ListDetached(instance, FuseDevice(instance, table));
    const auto it = std::find_if(images.begin(), images.end(), [&](const MountRecord& record) {
      return record.mount_point == options.mount_point ||
             (real.ok() && record.mount_point == *real);
    });
    if (it == images.end()) continue;
    const std::string superblock = it->superblock;  // That of its layers, too.
    std::erase_if(images, [&superblock](const MountRecord& record) {
      return record.superblock != superblock || record.object.empty();
    });
    ASSIGN_OR_RETURN(const UniqueFd lock, LockInstance(instance, deadline));
    RETURN_IF_ERROR(EndReadsOfDetached(instance, images)
                        .WithContext("cannot end the reads of " + options.mount_point));
    std::cerr << "holdfast: " << options.mount_point
              << " was detached before; what still reads it gets EIO\n";
    ASSIGN_OR_RETURN(const std::vector<MountRecord> live, LiveMounts(instance));
    if (!live.empty()) return true;
    WaitUntil([&] { return DescribeUsers(instance).empty(); }, Deadline(kReadsEnd))
        .IgnoreError("what uses it then is told");
    RETURN_IF_ERROR(EndWithLast(instance, options.mount_point));
    return true;
  }
  return false;
}

}  // namespace

// What is wrong with the command line; else how long to wait for the lock.
Result<std::chrono::milliseconds> CheckOptions(const UmountOptions& options) {
  RETURN_IF_ERROR(
      Instance::Make(options.root, options.instance.empty() ? "default" : options.instance)
          .status());
  ASSIGN_OR_RETURN(const std::chrono::milliseconds timeout, ParseTimeout(options.timeout));
  return options.force ? std::min(kForcedLockTimeout, timeout) : timeout;
}

Status UmountChecked(const UmountOptions& options, const Deadline& deadline) {
  RETURN_IF_ERROR(RequireMountRights("unmounting"));
  std::string path;
  const Result<std::optional<OwnedMount>> by_path =
      FindByPath(options.root, options.mount_point, &path);
  if (!by_path.ok()) {
    return Status(by_path.status()).WithContext("cannot unmount " + options.mount_point);
  }
  const std::optional<OwnedMount>& found = *by_path;
  if (!found) {
    if (options.force) {
      ASSIGN_OR_RETURN(const bool is_ended, ForceDetached(options, deadline));
      if (is_ended) return {};
    }
    ASSIGN_OR_RETURN(const bool is_forgotten, ForgetUnmounted(options, deadline));
    return is_forgotten ? Status() : NotOurs(options);
  }
  if (!options.instance.empty() && found->instance.name() != options.instance) {
    return Status(EINVAL, options.mount_point + " is a mount of instance " +
                              found->instance.name() + ": holdfast umount" +
                              found->instance.RootFlag() + " " + options.mount_point);
  }
  const Result<UniqueFd> lock = LockInstance(found->instance, deadline);
  // A command that waits for this very instance may hold it; what it waits for is to end.
  if (!lock.ok() && !(options.force && lock.status().error() == ETIMEDOUT)) return lock.status();
  // Another process may have unmounted it during the wait for the lock.
  ASSIGN_OR_RETURN(const std::vector<MountEntry> table, ReadMountTable());
  const std::optional<OwnedMount> owned = FindOwned(options.root, path, table);
  if (!owned || owned->instance.name() != found->instance.name()) return NotOurs(options);
  const Status status = RunUmountLocked(options, *owned, path);
  if (!status.ok() || options.keep_persistent) return status;
  return RemoveSavedMount(found->instance, owned->mount.record.mount_point).status();
}

void UmountOptions::AddTo(CLI::App* app) {
  app->add_option("MOUNTPOINT", mount_point, "What holdfast mount was given")
      ->required()
      ->type_name("");
  app->add_flag("--keep", keep, "Leave the instance running without its last mount");
  app->add_flag("--lazy", lazy, "Detach a busy mount now; its users go on with it");
  app->add_flag("--force", force,
                "Detach it even when its daemons are dead or hang; its waiting reads get EIO")
      ->excludes("--keep")
      ->excludes("--lazy");
  app->add_flag("--keep-persistent", keep_persistent,
                "Keep the record of --persist: the mount comes back after a reboot");
  app->add_option("--timeout", timeout,
                  "How long to wait for another command on this instance (default: 60s)")
      ->type_name("TIME");
  app->add_option("--instance", instance, "Only a mount of this instance")->type_name("NAME");
  app->add_option("--root", root, "Where all instances' files are (default: $HOLDFAST_ROOT or /)")
      ->type_name("DIR");
  app->add_flag("--json", json, "Print how it ended as JSON: errno, error, message");
}

Status UmountByArguments(const std::vector<std::string>& arguments, const Deadline& deadline) {
  CLI::App app;
  UmountOptions options;
  options.AddTo(&app);
  RETURN_IF_ERROR(ParseArguments(&app, arguments));
  ASSIGN_OR_RETURN(const std::chrono::milliseconds waits, CheckOptions(options));
  return UmountChecked(options, Deadline(std::min(waits, deadline.Remaining())));
}

}  // namespace host
