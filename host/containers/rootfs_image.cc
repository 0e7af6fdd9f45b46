#include "host/containers/rootfs_image.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <functional>
#include <utility>

#include "cachecore/base/deadline.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/system/files.h"
#include "cachecore/system/mount_table.h"
#include "cachecore/system/subprocess.h"
#include "host/mount/mount_command.h"
#include "host/mount/umount_command.h"
#include "host/mounts/fuse_release.h"
#include "host/mounts/layer_mounts.h"
#include "host/mounts/mount_record.h"
#include "host/mounts/own_mounts.h"
#include "host/service/instance_control.h"

namespace host {
namespace {

using cachecore::Deadline;
using cachecore::FindTool;
using cachecore::ListDirectory;
using cachecore::LockDirectory;
using cachecore::MakeDirectories;
using cachecore::MountEntry;
using cachecore::ReadMountTable;
using cachecore::Result;
using cachecore::RunTool;
using cachecore::Status;
using cachecore::TryLockDirectory;
using cachecore::UniqueFd;
using cachecore::WaitUntil;

constexpr std::chrono::milliseconds kRuncDeleteTimeout{20000};

std::vector<std::string> ArgumentsFor(const Instance& instance) {
  return {"--root=" + (instance.root().empty() ? "/" : instance.root()),
          "--instance=" + instance.name()};
}

std::string ImagesDirectory(const Instance& instance) { return instance.RunDir() + "/images"; }

// Only root: an image may hold setuid programs and devices, which are its containers' only.
Status MakeImagesDirectory(const Instance& instance) {
  const std::string path = ImagesDirectory(instance);
  RETURN_IF_ERROR(MakeDirectories(path, 0700));
  return chmod(path.c_str(), 0700) == 0 ? Status() : Status::FromErrno(errno, path);
}

// What was mounted by a command that died before it could say so in a record.
void DetachStrays(const Instance& instance, const std::vector<std::string>& known) {
  const Result<std::vector<MountEntry>> table = ReadMountTable();
  if (!table.ok()) return;
  for (const MountEntry& entry : *table) {
    if (!entry.mount_point.starts_with(ImagesDirectory(instance) + "/")) continue;
    if (std::find(known.begin(), known.end(), entry.mount_point) != known.end()) continue;
    const bool is_ours = entry.type == "erofs" || entry.type == "overlay" || IsHoldfastFuse(entry);
    if (is_ours) (void)Detach(entry);
  }
}

// Whether the mount itself is in use: the kernel answers this question without unmounting.
bool IsBusy(const std::string& mount_point) {
  return umount2(mount_point.c_str(), MNT_EXPIRE | UMOUNT_NOFOLLOW) != 0 && errno == EBUSY;
}

using IsWanted = std::function<bool(const std::string& mount_point)>;

// The records of wanted images' mounts; those that a killed command is still making are waited for.
Result<std::vector<MountRecord>> ImageMounts(const Instance& instance, const IsWanted& is_wanted,
                                             const Deadline& deadline) {
  std::vector<MountRecord> found;
  const std::string place = ImagesDirectory(instance) + "/";
  const auto all_made = [&] {
    found.clear();
    const Result<std::vector<MountRecord>> mounts = LiveMounts(instance);
    if (!mounts.ok()) return true;
    for (const MountRecord& record : *mounts) {
      if (!record.mount_point.starts_with(place) || !is_wanted(record.mount_point)) continue;
      found.push_back(record);
    }
    return std::all_of(found.begin(), found.end(), [](const auto& one) { return one.mounted; });
  };
  const Status waited = WaitUntil(all_made, deadline);
  if (waited.ok()) return found;
  const auto unmade =
      std::find_if(found.begin(), found.end(), [](const auto& one) { return !one.mounted; });
  if (waited.error() != ETIMEDOUT || unmade == found.end()) return waited;
  return Status(ETIMEDOUT, "process " + std::to_string(unmade->claimed_by) + " still mounts " +
                               unmade->url + " on " + unmade->mount_point +
                               "; wait for it (--timeout) or end it");
}

Status MountLocked(const Instance& instance, const RootfsRecord& record, const std::string& point,
                   const Deadline& deadline) {
  ASSIGN_OR_RETURN(
      const std::vector<MountRecord> mounts,
      ImageMounts(
          instance, [&point](const std::string& one) { return one == point; }, deadline));
  if (!mounts.empty() && AnswersPing(instance) && !IsConnectionDead(instance)) return {};
  RETURN_IF_ERROR(MakeImagesDirectory(instance));
  RETURN_IF_ERROR(MakeDirectories(point, 0755));
  std::vector<std::string> arguments = ArgumentsFor(instance);
  const auto left = std::max(std::chrono::milliseconds(1), deadline.Remaining());
  arguments.push_back("--timeout=" + std::to_string(left.count()) + "ms");
  arguments.push_back("--suid");  // The container's programs and devices: MakeImagesDirectory.
  arguments.push_back("--dev");
  arguments.insert(arguments.end(), record.mount_flags.begin(), record.mount_flags.end());
  arguments.push_back("--");
  arguments.push_back(record.reference);
  arguments.push_back(point);
  return MountByArguments(arguments, deadline);
}

std::string CureFor(const Instance& instance, const OwnMount& mount) {
  for (const RootfsRecord& rootfs : ListRootfsRecords(instance)) {
    if (ImageMountPoint(instance, rootfs.erofs_digest) != mount.record.mount_point) continue;
    return "the root file system " + rootfs.name + " is made of " + rootfs.reference +
           "; remove it first: holdfast rootfs rm" + instance.Flags() + " " + rootfs.name;
  }
  return "unmount them first: " + UmountCommand(instance, mount);
}

}  // namespace

std::vector<std::string> MountFlagsOf(const RegistryAccess& access) {
  std::vector<std::string> flags;
  const auto add = [&flags](const char* flag, const std::string& value) {
    if (!value.empty()) flags.push_back(flag + value);
  };
  // The default is looked for again: it may be gone by then, and it was not asked for.
  if (!access.has_default_auth_file) add("--auth-file=", access.auth_file);
  add("--ca-file=", access.ca_file);
  add("--client-cert=", access.client_cert);
  add("--client-key=", access.client_key);
  if (access.plain_http) flags.push_back("--plain-http");
  for (const std::string& mirror : access.mirrors) flags.push_back("--mirror=" + mirror);
  return flags;
}

Status MountSharedImage(const Instance& instance, const RootfsRecord& record,
                        const Deadline& deadline) {
  const std::string point = ImageMountPoint(instance, record.erofs_digest);
  const std::string place = point + ".lock";
  Result<UniqueFd> lock = LockDirectory(place, 0700, deadline);
  if (lock.status().error() == ETIMEDOUT) {
    return Status(ETIMEDOUT, "another holdfast mounts " + record.reference +
                                 " and holds the lock " + place +
                                 "; wait for it (--timeout) or end it");
  }
  if (!lock.ok()) return lock.status();
  const Status status = MountLocked(instance, record, point, deadline);
  rmdir(place.c_str());
  return status;
}

Status ReleaseImagesBut(const Instance& instance, const std::vector<std::string>& used,
                        const Deadline& deadline) {
  const std::string place = ImagesDirectory(instance);
  const auto is_unused = [&used](const std::string& point) {
    return std::find(used.begin(), used.end(), point) == used.end();
  };
  ASSIGN_OR_RETURN(const std::vector<MountRecord> mounts,
                   ImageMounts(instance, is_unused, deadline));
  std::vector<std::string> known = used;
  Status first;
  for (const MountRecord& mount : mounts) {
    known.push_back(mount.mount_point);
    std::vector<std::string> arguments = ArgumentsFor(instance);
    // A copy that another mount namespace got is no user that it could wait for: the file system
    // and the instance stay for it.  One that is used here is refused.
    if (!IsBusy(mount.mount_point)) arguments.push_back("--lazy");
    arguments.push_back(mount.mount_point);
    Status status = UmountByArguments(arguments, deadline);
    if (first.ok()) first = std::move(status);
  }
  DetachStrays(instance, known);
  for (const std::string& name : ListDirectory(place)) {
    const std::string path = place + "/" + name;
    // A lock's, unless it is held, or a mount point, unless there is a mount.
    if (is_unused(path) && TryLockDirectory(path).ok()) rmdir(path.c_str());
  }
  if (rmdir(place.c_str()) == 0) rmdir(instance.RunDir().c_str());
  return first;
}

Status CheckHasNoMounts(const Instance& instance) {
  ReleaseUnusedLayers(instance);
  ASSIGN_OR_RETURN(std::vector<OwnMount> mounts, ListMounts(instance));
  HideLayers(&mounts);
  std::erase_if(mounts, [](const OwnMount& mount) {
    return mount.state != MountState::kMounting && mount.state != MountState::kMounted;
  });
  if (mounts.empty()) return {};
  std::string list;
  for (const OwnMount& mount : mounts) {
    list += (list.empty() ? "" : ", ") + mount.record.mount_point;
  }
  return Status(EBUSY, "instance " + instance.name() + " has mounts: " + list + "; " +
                           CureFor(instance, mounts.front()));
}

void EndContainer(const std::string& bundle, const std::string& name) {
  const std::string state = bundle + "/runc";
  if (access((state + "/" + name).c_str(), F_OK) != 0) return;
  const Result<std::string> runc = FindTool("runc", "runc");
  if (!runc.ok()) return;
  RunTool({*runc, "--root", state, "delete", "--force", name}, Deadline(kRuncDeleteTimeout))
      .IgnoreError("what it cannot end is found in use afterwards");
}

}  // namespace host
