#include "host/mounts/saved_mount.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "cachecore/base/json_fields.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/environment/secret_file.h"
#include "cachecore/system/files.h"
#include "host/instance/trusted_directory.h"
#include "host/mounts/mount_record.h"

namespace host {
namespace {

using cachecore::JsonField;
using cachecore::JsonInt;
using cachecore::JsonString;
using cachecore::JsonStrings;
using cachecore::ListDirectory;
using cachecore::RecordText;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
using cachecore::WriteFileAtomically;
using nlohmann::json;

std::string FileOf(const Instance& instance, const std::string& mount_point) {
  return instance.SavedMountsDir() + "/" + MountFileName(mount_point) + ".json";
}

Status NoRecord(const std::string& path, const std::string& why) {
  return Status(EBADMSG, path + " is no record of a mount (" + why +
                             "), and nothing is mounted for it; remove it, and mount the image "
                             "again with --persist");
}

Result<SavedMount> ReadFileOf(const std::string& path) {
  // Of a FIFO an open that waits would hold up all the others.
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat info;
  if (!fd.valid() || fstat(fd.get(), &info) != 0) return Status::FromErrno(errno, path);
  if (!S_ISREG(info.st_mode)) return NoRecord(path, "it is no regular file");
  if (info.st_uid != geteuid() || (info.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return Status(EPERM, path +
                             " can be changed by another user than root, and nothing is mounted "
                             "for it; remove it, and mount the image again with --persist");
  }
  const Result<std::string> text = cachecore::ReadOpenFile(fd, path);
  if (!text.ok()) return NoRecord(path, text.status().message());
  const json value = json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!value.is_object()) return NoRecord(path, "it is no JSON object");
  if (JsonInt(value, "version") != 1) return NoRecord(path, "its version is not 1");
  SavedMount mount = SavedMount::FromJson(value);
  if (!mount.mount_point.starts_with('/') || mount.image.empty()) {
    return NoRecord(path, "it names no mount point or no image");
  }
  if (!path.ends_with("/" + MountFileName(mount.mount_point) + ".json")) {
    return NoRecord(path, "its name is not that of its mount point");
  }
  return mount;
}

}  // namespace

json SavedMount::ToJson() const {
  return {{"version", 1},         {"mount_point", mount_point},
          {"url", url},           {"volume", volume},
          {"image", image},       {"origins", origins},
          {"options", options},   {"environment", environment},
          {"settings", settings}, {"time", since_unix_s}};
}

SavedMount SavedMount::FromJson(const json& value) {
  SavedMount mount;
  mount.mount_point = JsonString(value, "mount_point");
  mount.url = JsonString(value, "url");
  mount.volume = JsonString(value, "volume");
  mount.image = JsonString(value, "image");
  mount.origins = JsonStrings(value, "origins");
  mount.options = JsonStrings(value, "options");
  const json& environment = JsonField(value, "environment");
  if (environment.is_object()) {
    for (const auto& [name, unused] : environment.items()) {
      mount.environment[name] = JsonString(environment, name.c_str());
    }
  }
  const json& settings = JsonField(value, "settings");
  if (settings.is_object() && !settings.empty()) mount.settings = settings;
  mount.since_unix_s = JsonInt(value, "time");
  return mount;
}

Status WriteSavedMount(const Instance& instance, const SavedMount& mount) {
  RETURN_IF_ERROR(MakeTrustedDirectory(instance.SavedMountsDir(), 0700));
  RETURN_IF_ERROR(WriteFileAtomically(FileOf(instance, mount.mount_point),
                                      RecordText(mount.ToJson()) + "\n", 0600));
  for (const Instance& other : Instance::List(instance.root())) {
    if (other.name() == instance.name()) continue;
    RETURN_IF_ERROR(RemoveSavedMount(other, mount.mount_point).status());
  }
  return {};
}

Result<bool> RemoveSavedMount(const Instance& instance, const std::string& mount_point) {
  const std::string path = FileOf(instance, mount_point);
  if (unlink(path.c_str()) == 0) return true;
  if (errno == ENOENT || errno == ENOTDIR) return false;
  return Status::FromErrno(errno, "remove " + path + ", by which the mount comes back");
}

Result<SavedMount> ReadSavedMount(const Instance& instance, const std::string& mount_point) {
  return ReadFileOf(FileOf(instance, mount_point));
}

std::vector<SavedMountFile> ListSavedMounts(const Instance& instance) {
  std::vector<SavedMountFile> files;
  for (const std::string& name : ListDirectory(instance.SavedMountsDir())) {
    if (!name.ends_with(".json")) continue;
    const std::string path = instance.SavedMountsDir() + "/" + name;
    Result<SavedMount> mount = ReadFileOf(path);
    if (mount.status().error() == ENOENT) continue;
    files.push_back({path, std::move(mount)});
  }
  return files;
}

}  // namespace host
