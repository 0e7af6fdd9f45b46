#include "cli/rootfs_image.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <functional>
#include <utility>

#include "cachecore/unique_fd.h"
#include "cli/deadline.h"
#include "cli/files.h"
#include "cli/fuse_release.h"
#include "cli/instance_control.h"
#include "cli/mount_record.h"
#include "cli/mount_table.h"
#include "cli/own_mounts.h"
#include "cli/process.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

// Beside the timeout that the command is given itself: for undoing what it began.
constexpr std::chrono::milliseconds kMountCommandGrace{30000};
constexpr std::chrono::milliseconds kUmountCommandTimeout{60000};
constexpr std::chrono::milliseconds kRuncDeleteTimeout{20000};

Status RunHoldfast(std::vector<std::string> arguments, std::chrono::milliseconds timeout) {
  std::error_code error;
  const std::string self = std::filesystem::read_symlink("/proc/self/exe", error).string();
  if (error) return Status::FromErrno(error.value(), "/proc/self/exe");
  arguments.insert(arguments.begin(), self);
  ASSIGN_OR_RETURN(const ToolEnd end, RunTool(arguments, Deadline(timeout)));
  if (end.exit_code == 0) return {};
  std::string said = end.errors;
  while (said.ends_with('\n')) said.pop_back();
  said = said.substr(said.rfind('\n') + 1);
  if (said.starts_with("holdfast: ")) said = said.substr(10);
  return Status(EIO, said.empty() ? "holdfast " + arguments[1] + " failed" : said);
}

std::vector<std::string> CommandFor(const char* verb, const Instance& instance) {
  return {verb, "--root=" + (instance.root().empty() ? "/" : instance.root()),
          "--instance=" + instance.name()};
}

std::string ImagesDirectory(const Instance& instance) { return instance.RunDir() + "/images"; }

// Nobody but root: an image may hold setuid programs and devices, which are its containers' only.
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
    if (entry.type == "erofs" || IsHoldfastFuse(entry)) (void)Detach(entry);
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
  RETURN_IF_ERROR(WaitUntil(all_made, deadline));
  return found;
}

Status MountLocked(const Instance& instance, const RootfsRecord& record, const std::string& point,
                   const Deadline& deadline) {
  ASSIGN_OR_RETURN(const std::vector<MountRecord> mounts,
                   ImageMounts(
                       instance, [&point](const std::string& one) { return one == point; },
                       deadline));
  if (!mounts.empty() && AnswersPing(instance) && !IsConnectionDead(instance)) return {};
  RETURN_IF_ERROR(MakeImagesDirectory(instance));
  RETURN_IF_ERROR(MakeDirectories(point, 0755));
  std::vector<std::string> command = CommandFor("mount", instance);
  const auto left = std::max(std::chrono::milliseconds(1), deadline.Remaining());
  command.push_back("--timeout=" + std::to_string(left.count()) + "ms");
  command.push_back("--suid");  // The container's programs and devices, below MakeImagesDirectory.
  command.push_back("--dev");
  command.insert(command.end(), record.mount_flags.begin(), record.mount_flags.end());
  command.push_back(record.reference);
  command.push_back(point);
  return RunHoldfast(command, left + kMountCommandGrace);
}

}  // namespace

std::vector<std::string> MountFlagsOf(const RegistryAccess& access) {
  std::vector<std::string> flags;
  const auto add = [&flags](const char* flag, const std::string& value) {
    if (!value.empty()) flags.push_back(flag + value);
  };
  // The default is looked for anew: it may be gone by then, and nobody has asked for it.
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
  if (!lock.ok()) return std::move(lock).status().WithContext("another holdfast mounts the image");
  const Status status = MountLocked(instance, record, point, deadline);
  rmdir(place.c_str());
  return status;
}

Status ReleaseImagesBut(const Instance& instance, const std::vector<std::string>& used) {
  const std::string place = ImagesDirectory(instance);
  const auto is_unused = [&used](const std::string& point) {
    return std::find(used.begin(), used.end(), point) == used.end();
  };
  ASSIGN_OR_RETURN(const std::vector<MountRecord> mounts,
                   ImageMounts(instance, is_unused, Deadline(kUmountCommandTimeout)));
  std::vector<std::string> known = used;
  Status first;
  for (const MountRecord& mount : mounts) {
    known.push_back(mount.mount_point);
    std::vector<std::string> command = CommandFor("umount", instance);
    // A copy that another mount namespace got is no user that it could wait for: the file system
    // and the instance stay for it.  One that is used here is refused.
    if (!IsBusy(mount.mount_point)) command.push_back("--lazy");
    command.push_back(mount.mount_point);
    Status status = RunHoldfast(command, kUmountCommandTimeout);
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

void EndContainer(const std::string& bundle, const std::string& name) {
  const std::string state = bundle + "/runc";
  if (access((state + "/" + name).c_str(), F_OK) != 0) return;
  const Result<std::string> runc = FindTool("runc", "runc");
  if (!runc.ok()) return;
  // What it can't end is found in use afterwards.
  (void)RunTool({*runc, "--root", state, "delete", "--force", name}, Deadline(kRuncDeleteTimeout))
      .ok();
}

}  // namespace cli
