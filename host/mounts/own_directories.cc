#include "host/mounts/own_directories.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <utility>
#include <vector>

#include "cachecore/base/json_fields.h"
#include "cachecore/base/parse_text.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/system/files.h"
#include "cachecore/system/mount_table.h"
#include "host/instance/cache_dir.h"
#include "host/instance/instance.h"
#include "host/instance/lock_file.h"
#include "host/mounts/mount_record.h"
#include "host/mounts/own_mounts.h"

namespace host {
namespace {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
using nlohmann::json;

using Identity = std::pair<std::string, uint64_t>;  // Device and inode.

// Asks no file system that could wait for a server.
Identity IdentityOf(int directory) {
  struct statx info;
  if (statx(directory, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &info) != 0) return {};
  return {std::to_string(info.stx_dev_major) + ":" + std::to_string(info.stx_dev_minor),
          info.stx_ino};
}

// The directory itself first, the root directory last.
std::vector<Identity> WithThoseAbove(UniqueFd directory) {
  std::vector<Identity> identities;
  while (directory.valid()) {
    const Identity identity = IdentityOf(directory.get());
    if (!identities.empty() && identity == identities.back()) break;
    identities.push_back(identity);
    directory.Reset(openat(directory.get(), "..", O_PATH | O_DIRECTORY | O_CLOEXEC));
  }
  return identities;
}

UniqueFd OpenDirectory(const std::string& path) {
  return UniqueFd(open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
}

// `path`, or what is there of it already.
std::vector<Identity> AtOrAbove(std::string path) {
  UniqueFd directory = OpenDirectory(path);
  while (!directory.valid() && path.size() > 1) {
    path.resize(std::max<size_t>(1, path.find_last_of('/')));
    directory = OpenDirectory(path);
  }
  return WithThoseAbove(std::move(directory));
}

bool Contains(const std::vector<Identity>& identities, const Identity& identity) {
  return std::find(identities.begin(), identities.end(), identity) != identities.end();
}

// What an instance's processes open by name, and may have to open again at any time.
std::vector<std::string> DirectoriesOf(const Instance& instance) {
  return {instance.StateDir(), CacheDirOf(instance), instance.RunDir(), instance.LogDir()};
}

// Below them commands keep mounts that others lie on: `holdfast rootfs` those of its images.
std::vector<std::string> MountedBelow(const Instance& instance) {
  return {instance.RunDir() + "/images", instance.LayersDir()};
}

Status Refuse(const std::string& path, const std::string& hidden, const std::string& why) {
  return Status(EBUSY, "mount point " + path + " would hide " + hidden + ", " + why +
                           "; use a directory elsewhere");
}

// By name: a file system that does not answer must not be asked here.
Status CheckFiles(const std::string& url, const json& files, const std::string& path) {
  for (const json& entry : files) {
    const Result<std::string> file = cachecore::PercentDecode(cachecore::JsonString(entry, "path"));
    if (!file.ok() || !file->starts_with(path + "/")) continue;
    // A file of credentials may be named that is not there, and then is not hidden.
    if (!entry.contains("url") && access(file->c_str(), F_OK) != 0) continue;
    return Refuse(path, *file, "which " + url + " needs");
  }
  return {};
}

Status CheckHidesNoOrigin(const Instance& instance, const std::string& url, const json& files,
                          const std::string& path) {
  RETURN_IF_ERROR(CheckFiles(url, files, path));
  ASSIGN_OR_RETURN(const std::vector<cachecore::MountEntry> table, cachecore::ReadMountTable());
  for (const Instance& one : Instance::List(instance.root())) {
    for (const MountRecord& record : ListMountRecords(one)) {
      // A mount that is replaced is still recorded.
      const bool is_live =
          record.mount_point != path && LookUp(one, record, table).state != MountState::kGone;
      const Result<std::string> source = cachecore::ReadFile(one.SourceFile(record.volume));
      if (!is_live || !source.ok()) continue;
      const json fields = json::parse(*source, nullptr, /*allow_exceptions=*/false);
      RETURN_IF_ERROR(CheckFiles(record.url, cachecore::JsonField(fields, "files"), path));
    }
  }
  return {};
}

}  // namespace

Status CheckHidesNothing(const Instance& instance, const std::string& cache_dir,
                         const std::string& url, const json& files, int directory,
                         const std::string& path) {
  const Identity point = IdentityOf(directory);
  const std::vector<Identity> above_point =
      WithThoseAbove(UniqueFd(openat(directory, ".", O_PATH | O_DIRECTORY | O_CLOEXEC)));
  const auto is_inside = [&](const std::string& own) {
    const UniqueFd fd = OpenDirectory(own);
    return fd.valid() && Contains(above_point, IdentityOf(fd.get()));
  };
  const auto is_for_mounts = [&](const Instance& one) {
    const std::vector<std::string> places = MountedBelow(one);
    return std::any_of(places.begin(), places.end(), [&](const std::string& place) {
      return is_inside(place) && !Contains(AtOrAbove(place), point);
    });
  };
  const std::string locks = RunRoot(instance.root()) + "/" + kLocksDirectory;
  if (is_inside(locks)) return Refuse(path, locks, "where all commands have their locks");
  std::vector<Instance> instances = Instance::List(instance.root());
  instances.push_back(instance);
  for (const Instance& one : instances) {
    std::vector<std::string> directories = DirectoriesOf(one);
    if (one.name() == instance.name()) directories.push_back(cache_dir);
    for (const std::string& own : directories) {
      const std::string why = "which instance " + one.name() + " needs";
      if (Contains(AtOrAbove(own), point)) return Refuse(path, own, why);
      if (is_inside(own) && !is_for_mounts(one)) return Refuse(path, "a part of " + own, why);
    }
  }
  return CheckHidesNoOrigin(instance, url, files, path);
}

}  // namespace host
