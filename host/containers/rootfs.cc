#include "host/containers/rootfs.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <ctime>
#include <filesystem>
#include <iostream>

#include "cachecore/base/deadline.h"
#include "cachecore/system/files.h"
#include "cachecore/system/mount_table.h"
#include "host/containers/rootfs_image.h"
#include "host/images/resolved_image.h"
#include "host/instance/lock_file.h"
#include "host/mounts/own_mounts.h"
#include "host/registries/image_reference.h"

namespace host {
namespace {

using cachecore::Deadline;
using cachecore::FindMount;
using cachecore::ListDirectory;
using cachecore::MakeDirectories;
using cachecore::MountEntry;
using cachecore::ParseMountTable;
using cachecore::ReadFile;
using cachecore::ReadMountTable;
using cachecore::Result;
using cachecore::Status;
using cachecore::StopSignalsIgnored;
using cachecore::UniqueFd;
using cachecore::WaitUntil;

// To undo is worth a wait for other commands beyond --timeout, which has often passed by then.
constexpr std::chrono::milliseconds kRootfsUndoTimeout{10000};
// As containerd makes the root directory of a container.
constexpr mode_t kRootMode = 0755;

std::string OverlayPoint(const Instance& instance, const std::string& name) {
  return RootfsBundle(instance, name) + "/rootfs";
}

// The kernel splits options at commas and lower directories at colons, unless a backslash is before
// them.
std::string EscapedForOverlay(const std::string& path) {
  std::string escaped;
  for (const char c : path) {
    if (c == ',' || c == ':' || c == '\\') escaped += '\\';
    escaped += c;
  }
  return escaped;
}

// Whether a process with this mountinfo has the overlay with this upper directory as its root.
// Anywhere else it is only a copy, such as every new mount namespace gets.
bool IsRootOf(const std::string& mountinfo, const std::string& upper) {
  const std::vector<MountEntry> table = ParseMountTable(mountinfo);
  const MountEntry* root = FindMount(table, "/");
  if (root == nullptr) return false;
  const auto has_upper = [root](const std::string& path) {
    return root->options.find("upperdir=" + path + "/upper,") != std::string::npos;
  };
  return has_upper(upper) || has_upper(EscapedForOverlay(upper));  // As the kernel keeps it.
}

// A process of a container that has the overlay with this upper directory as its root; 0: none.
pid_t ContainerProcess(const std::string& upper) {
  char own[PATH_MAX] = {};
  if (readlink("/proc/self/ns/mnt", own, sizeof own - 1) < 0) return 0;
  for (const std::string& name : ListDirectory("/proc")) {
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    char other[PATH_MAX] = {};
    if (readlink(("/proc/" + name + "/ns/mnt").c_str(), other, sizeof other - 1) < 0) continue;
    if (std::string(own) == other) continue;
    const Result<std::string> table = ReadFile("/proc/" + name + "/mountinfo");
    if (table.ok() && IsRootOf(*table, upper)) return std::stoi(name);
  }
  return 0;
}

// Removes a directory, unless something is mounted in it, which would be emptied.
Status RemoveTree(const std::string& path) {
  ASSIGN_OR_RETURN(const std::vector<MountEntry> table, ReadMountTable());
  for (const MountEntry& entry : table) {
    if (entry.mount_point == path || entry.mount_point.starts_with(path + "/")) {
      return Status(EBUSY, entry.mount_point + " is still mounted; unmount it first");
    }
  }
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) return Status::FromErrno(error.value(), "remove " + path);
  return {};
}

Status UnmountIfMounted(const std::string& path) {
  for (;;) {
    ASSIGN_OR_RETURN(const std::vector<MountEntry> table, ReadMountTable());
    if (FindMount(table, path) == nullptr) return {};
    if (umount2(path.c_str(), UMOUNT_NOFOLLOW) == 0) continue;
    const int error = errno;
    const MountEntry* busy = error == EBUSY ? FindMount(table, path) : nullptr;
    const std::string holders = busy != nullptr ? DescribeHolders({busy->device}) : "";
    if (error == EBUSY) {
      return Status(EBUSY, path + " is busy" + (holders.empty() ? "" : ", " + holders) +
                               "; end its users first");
    }
    return Status::FromErrno(error, "unmount " + path);
  }
}

// Whether a living holdfast is making it, or runs its container.
bool IsHeld(const Instance& instance, const std::string& name) {
  return HoldRootfs(instance, name).status().error() == EBUSY;
}

// Images that no overlay uses any more, nor soon will.  A busy one is tried again
// the next time; no container is affected.
void ReleaseUnusedImages(const Instance& instance, const Deadline& deadline) {
  std::vector<std::string> used;
  std::vector<RootfsRecord> idle;
  for (RootfsRecord& record : ListRootfsRecords(instance)) {
    if (IsHeld(instance, record.name)) {
      used.push_back(ImageMountPoint(instance, record.erofs_digest));
    } else {
      idle.push_back(std::move(record));
    }
  }
  // Now, not before: a process that held one until a moment ago has mounted its overlay.
  const Result<std::vector<MountEntry>> table = ReadMountTable();
  if (!table.ok()) return;
  for (const RootfsRecord& record : idle) {
    if (FindMount(*table, OverlayPoint(instance, record.name)) != nullptr ||
        ContainerProcess(record.upper) != 0) {
      used.push_back(ImageMountPoint(instance, record.erofs_digest));
    }
  }
  const Status status = ReleaseImagesBut(instance, used, deadline);
  if (!status.ok()) std::cerr << "holdfast: an image stays mounted: " << status.message() << "\n";
}

// The overlay's own, which goes with it.
std::string WorkDirectory(const RootfsRecord& record) { return record.upper + "/.holdfast-work"; }

Status TakeDown(const Instance& instance, const std::string& name, const Deadline& deadline) {
  const std::string bundle = RootfsBundle(instance, name);
  const Result<RootfsRecord> record = ReadRootfsRecord(instance, name);
  RETURN_IF_ERROR(UnmountIfMounted(bundle + "/rootfs"));
  RETURN_IF_ERROR(UnmountIfMounted(bundle + "/tmpfs"));
  if (record.ok() && !record->own_upper) RETURN_IF_ERROR(RemoveTree(WorkDirectory(*record)));
  RETURN_IF_ERROR(RemoveTree(bundle));
  ReleaseUnusedImages(instance, deadline);
  return {};
}

void SweepLocked(const Instance& instance, const Deadline& deadline) {
  for (const std::string& name : ListDirectory(RootfsHome(instance))) {
    const Result<UniqueFd> held = HoldRootfs(instance, name);
    if (!held.ok()) continue;
    const Result<RootfsRecord> record = ReadRootfsRecord(instance, name);
    // A directory that can't be read may have data, unless it does not exist.
    const bool is_stale =
        record.ok() ? !record->ready || record->goes_with_run : record.status().error() == ENOENT;
    if (!is_stale) continue;
    if (record.ok()) EndContainer(RootfsBundle(instance, name), name);
    const Status gone = TakeDown(instance, name, deadline);
    if (!gone.ok()) std::cerr << "holdfast: left of " << name << ": " << gone.message() << "\n";
  }
  ReleaseUnusedImages(instance, deadline);
}

Result<UniqueFd> LockHome(const Instance& instance, const Deadline& deadline) {
  RETURN_IF_ERROR(MakeDirectories(instance.StateDir(), kInstanceDirMode));
  RETURN_IF_ERROR(MakeDirectories(RootfsHome(instance), 0700));
  return HoldLock(RunRoot(instance.root()), "rootfs@" + instance.name(), deadline);
}

Status MakeUpper(const RootfsRecord& record, const std::string& image) {
  RETURN_IF_ERROR(MakeDirectories(record.upper, 0700));
  if (record.tmpfs) {
    ASSIGN_OR_RETURN(const std::vector<MountEntry> table, ReadMountTable());
    if (FindMount(table, record.upper) == nullptr &&
        mount("holdfast", record.upper.c_str(), "tmpfs", 0, "mode=0700") != 0) {
      return Status::FromErrno(errno, "mount a tmpfs on " + record.upper);
    }
  }
  RETURN_IF_ERROR(MakeDirectories(WorkDirectory(record), 0700));
  const std::string upper = record.upper + "/upper";
  if (access(upper.c_str(), F_OK) == 0) return {};
  // The container's root directory is the image's, whatever our umask.
  struct stat root;
  if (stat(image.c_str(), &root) != 0) return Status::FromErrno(errno, image);
  const std::string made = WorkDirectory(record) + "/upper";
  RETURN_IF_ERROR(MakeDirectories(made, 0700));
  if (chown(made.c_str(), root.st_uid, root.st_gid) != 0 ||
      chmod(made.c_str(), record.is_native ? kRootMode : root.st_mode & 07777) != 0 ||
      rename(made.c_str(), upper.c_str()) != 0) {
    return Status::FromErrno(errno, upper);
  }
  return {};
}

Status MountOverlay(const Instance& instance, const RootfsRecord& record) {
  const std::string point = OverlayPoint(instance, record.name);
  const std::string lower = ImageMountPoint(instance, record.erofs_digest);
  RETURN_IF_ERROR(MakeDirectories(point, 0755));
  const std::string options = "lowerdir=" + EscapedForOverlay(lower) +
                              ",upperdir=" + EscapedForOverlay(record.upper + "/upper") +
                              ",workdir=" + EscapedForOverlay(WorkDirectory(record));
  if (mount("overlay", point.c_str(), "overlay", 0, options.c_str()) == 0) return {};
  const int error = errno;
  if (error == ENODEV) {
    return Status(ENODEV, "this kernel has no overlay file system; load it (modprobe overlay)");
  }
  if (error == EINVAL || error == EOPNOTSUPP) {
    return Status(error,
                  record.upper +
                      " can't hold what containers write: its file system can't be an "
                      "overlay's upper directory; use one on ext4, xfs or btrfs, or --tmpfs");
  }
  return Status::FromErrno(error, "mount the overlay on " + point);
}

Status MountHeld(const Instance& instance, RootfsRecord* record, const Deadline& deadline) {
  RETURN_IF_ERROR(MountSharedImage(instance, *record, deadline));
  ASSIGN_OR_RETURN(const std::vector<MountEntry> table, ReadMountTable());
  const std::string point = OverlayPoint(instance, record->name);
  const std::string fuse_device = FuseDevice(instance, table);
  if (FindMount(table, point) != nullptr) {
    if (record->fuse_device.empty() || record->fuse_device == fuse_device) return {};
    // Its image was on an earlier FUSE connection, which nothing serves any more.
    RETURN_IF_ERROR(UnmountIfMounted(point));
  }
  RETURN_IF_ERROR(MakeUpper(*record, ImageMountPoint(instance, record->erofs_digest)));
  RETURN_IF_ERROR(MountOverlay(instance, *record));
  record->fuse_device = fuse_device;
  return WriteRootfsRecord(instance, *record);
}

Result<RootfsRecord> RecordFor(const RootfsRequest& request, const ImageReference& reference,
                               const ResolvedImage& image) {
  RootfsRecord record;
  record.name = request.name;
  ImageReference pinned = reference;
  pinned.digest = image.manifest_digest;
  record.reference = pinned.Text();
  record.manifest = image.manifest_digest;
  record.erofs_digest = image.ContentDigest();
  record.is_native = image.verity.empty();
  if (reference.kind == ImageReference::Kind::kRegistry) {
    record.mount_flags = MountFlagsOf(request.access);
  }
  record.tmpfs = request.tmpfs;
  record.goes_with_run = request.goes_with_run;
  record.since_unix_s = std::time(nullptr);
  record.upper = RootfsBundle(request.instance, request.name) + (request.tmpfs ? "/tmpfs" : "");
  if (request.upper.empty()) return record;
  record.own_upper = false;
  std::error_code error;
  record.upper = std::filesystem::canonical(request.upper, error).string();
  if (error) return Status::FromErrno(error.value(), request.upper);
  for (const RootfsRecord& other : ListRootfsRecords(request.instance)) {
    if (other.upper == record.upper) {
      return Status(EBUSY, record.upper + " is the upper directory of " + other.name + " already");
    }
  }
  return record;
}

// A root file system that is held: no other command removes it, or the mount of its image.
struct HeldRootfs {
  RootfsRecord record;
  UniqueFd held;
};

// Work directories come and go with their root file systems, whatever instance has them.
Status ClaimUpper(const RootfsRecord& record) {
  if (record.own_upper) return {};
  const std::string work = WorkDirectory(record);
  if (mkdir(work.c_str(), 0700) == 0) return {};
  if (errno != EEXIST) return Status::FromErrno(errno, "create directory " + work);
  return Status(EBUSY, record.upper + " is a root file system's upper directory already; if that " +
                           "is no more, remove " + work);
}

Result<HeldRootfs> Reserve(const RootfsRequest& request, const ImageReference& reference,
                           const ResolvedImage& image, const Deadline& deadline) {
  const Instance& instance = request.instance;
  ASSIGN_OR_RETURN(const UniqueFd home, LockHome(instance, deadline));
  SweepLocked(instance, deadline);
  ASSIGN_OR_RETURN(RootfsRecord record, RecordFor(request, reference, image));
  const std::string bundle = RootfsBundle(instance, request.name);
  if (mkdir(bundle.c_str(), 0700) != 0) {
    if (errno != EEXIST) return Status::FromErrno(errno, bundle);
    return Status(EEXIST, "there is a root file system " + request.name +
                              " already (holdfast rootfs list); use another name");
  }
  Result<UniqueFd> held = HoldRootfs(instance, request.name);
  Status status = held.ok() ? ClaimUpper(record) : held.status();
  if (status.ok()) {
    status = WriteRootfsRecord(instance, record);
    if (status.ok()) return HeldRootfs{std::move(record), std::move(held).value()};
    if (!record.own_upper) rmdir(WorkDirectory(record).c_str());
  }
  RemoveTree(bundle).IgnoreError("the error that led here is the one to tell");
  return std::move(status).WithContext("cannot make root file system " + request.name);
}

Status RequireRootfs(const Instance& instance, const std::string& name) {
  if (access(RootfsBundle(instance, name).c_str(), F_OK) == 0) return {};
  return Status(ENOENT, "there is no root file system " + name + " (holdfast rootfs list)");
}

Result<HeldRootfs> Hold(const Instance& instance, const std::string& name,
                        const Deadline& deadline) {
  ASSIGN_OR_RETURN(const UniqueFd home, LockHome(instance, deadline));
  SweepLocked(instance, deadline);
  RETURN_IF_ERROR(RequireRootfs(instance, name));
  ASSIGN_OR_RETURN(UniqueFd held, HoldRootfs(instance, name));
  ASSIGN_OR_RETURN(RootfsRecord record, ReadRootfsRecord(instance, name));
  return HeldRootfs{std::move(record), std::move(held)};
}

Status Fill(const RootfsRequest& request, RootfsRecord record, const ResolvedImage& image,
            const Deadline& deadline) {
  const Instance& instance = request.instance;
  RETURN_IF_ERROR(MountHeld(instance, &record, deadline));
  RETURN_IF_ERROR(WriteBundle(RootfsBundle(instance, record.name), record.name, image.config,
                              request.bundle, deadline.Remaining()));
  record.ready = true;
  return WriteRootfsRecord(instance, record);
}

}  // namespace

Result<UniqueFd> CreateRootfs(const RootfsRequest& request) {
  const Instance& instance = request.instance;
  RETURN_IF_ERROR(CheckRootfsName(request.name));
  ASSIGN_OR_RETURN(const ImageReference reference, ParseImageReference(request.reference));
  if (reference.kind == ImageReference::Kind::kBlob) {
    return Status(EINVAL, request.reference + " is a blob, which has no config; name the image");
  }
  const Deadline deadline(request.timeout);
  ASSIGN_OR_RETURN(const ResolvedImage image,
                   ResolveImage(reference, request.access, instance, deadline));
  ASSIGN_OR_RETURN(HeldRootfs rootfs, Reserve(request, reference, image, deadline));
  const Status status = Fill(request, rootfs.record, image, deadline);
  if (status.ok()) return std::move(rootfs.held);
  const StopSignalsIgnored until_undone;
  const Deadline undo_deadline(kRootfsUndoTimeout);
  const Result<UniqueFd> home = LockHome(instance, undo_deadline);
  if (!home.ok()) {
    std::cerr << "holdfast: " << home.status().message() << "; what is left of " << request.name
              << " goes with the next holdfast rootfs or run\n";
    return Status(status).WithContext("cannot make root file system " + request.name);
  }
  const Status undone = TakeDown(instance, request.name, undo_deadline);
  if (!undone.ok()) std::cerr << "holdfast: left behind: " << undone.message() << "\n";
  return Status(status).WithContext("cannot make root file system " + request.name);
}

Status MountRootfs(const Instance& instance, const std::string& name,
                   std::chrono::milliseconds timeout) {
  RETURN_IF_ERROR(CheckRootfsName(name));
  const Deadline deadline(timeout);
  ASSIGN_OR_RETURN(HeldRootfs rootfs, Hold(instance, name, deadline));
  return MountHeld(instance, &rootfs.record, deadline);
}

namespace {

// Ends the container of a living `holdfast run`, which then removes its root file system itself.  Returns
// whether it has.
Result<bool> EndRun(const Instance& instance, const std::string& name, const Deadline& deadline) {
  const auto is_held = [&] { return HoldRootfs(instance, name).status().error() == EBUSY; };
  if (!is_held()) return false;
  const std::string bundle = RootfsBundle(instance, name);
  EndContainer(bundle, name);
  RETURN_IF_ERROR(
      WaitUntil([&] { return access(bundle.c_str(), F_OK) != 0 || !is_held(); }, deadline)
          .WithContext("root file system " + name + " is still in use by another holdfast"));
  return access(bundle.c_str(), F_OK) != 0;
}

}  // namespace

Status RemoveRootfs(const Instance& instance, const std::string& name, bool force,
                    std::chrono::milliseconds timeout) {
  RETURN_IF_ERROR(CheckRootfsName(name));
  const Deadline deadline(timeout);
  if (force) {
    ASSIGN_OR_RETURN(const bool has_gone, EndRun(instance, name, deadline));
    if (has_gone) return {};
  }
  ASSIGN_OR_RETURN(const UniqueFd home, LockHome(instance, deadline));
  if (const Status found = RequireRootfs(instance, name); !found.ok()) {
    SweepLocked(instance, deadline);
    return found;
  }
  ASSIGN_OR_RETURN(const UniqueFd held, HoldRootfs(instance, name));
  const Result<RootfsRecord> record = ReadRootfsRecord(instance, name);
  if (record.ok()) {
    if (force || record->goes_with_run) EndContainer(RootfsBundle(instance, name), name);
    if (const pid_t pid = ContainerProcess(record->upper); pid != 0) {
      return Status(EBUSY, "root file system " + name + " is used by process " +
                               std::to_string(pid) + " of a container; end that first");
    }
  }
  RETURN_IF_ERROR(TakeDown(instance, name, deadline));
  SweepLocked(instance, deadline);
  return {};
}

Status RemoveOwnRootfs(const Instance& instance, const std::string& name, UniqueFd held,
                       std::chrono::milliseconds timeout) {
  const Deadline deadline(timeout);
  const StopSignalsIgnored until_removed;
  ASSIGN_OR_RETURN(const UniqueFd home, LockHome(instance, deadline));
  EndContainer(RootfsBundle(instance, name), name);
  const Status status = TakeDown(instance, name, deadline);
  held.Reset();
  return status;
}

Status SweepRootfs(const Instance& instance, std::chrono::milliseconds timeout) {
  const Deadline deadline(timeout);
  if (access(RootfsHome(instance).c_str(), F_OK) != 0) return {};
  ASSIGN_OR_RETURN(const UniqueFd home, LockHome(instance, deadline));
  SweepLocked(instance, deadline);
  return {};
}

}  // namespace host
