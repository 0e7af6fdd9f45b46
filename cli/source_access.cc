#include "cli/source_access.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "cli/files.h"

namespace cli {
namespace {

using cachecore::Status;

constexpr mode_t kSharedDirectoryMode = S_ISGID | 0750;
constexpr uid_t kSameOwner = static_cast<uid_t>(-1);

Status GiveToGroup(const std::string& path, gid_t group, mode_t mode) {
  if (lchown(path.c_str(), kSameOwner, group) == 0 && chmod(path.c_str(), mode) == 0) return {};
  return Status::FromErrno(errno, "give " + path + " to group " + std::to_string(group));
}

}  // namespace

Status ShareSources(const Instance& instance) {
  struct stat device;
  if (stat(instance.DeviceSocket().c_str(), &device) != 0 || device.st_uid == 0) return {};
  const passwd* fetcher = getpwuid(device.st_uid);
  if (fetcher == nullptr) {
    return Status(ENOENT, "the fetcher's user " + std::to_string(device.st_uid) +
                              " (the owner of " + instance.DeviceSocket() + ") does not exist");
  }
  const gid_t group = fetcher->pw_gid;
  const std::string directory = instance.SourcesDir();
  struct stat now;
  if (stat(directory.c_str(), &now) != 0) return Status::FromErrno(errno, "stat " + directory);
  if (now.st_gid == group && (now.st_mode & S_ISGID) != 0) return {};
  // Those of a time when the fetcher was root.
  for (const std::string& name : ListDirectory(directory)) {
    RETURN_IF_ERROR(GiveToGroup(directory + "/" + name, group, kSourceMode));
  }
  return GiveToGroup(directory, group, kSharedDirectoryMode);
}

}  // namespace cli
