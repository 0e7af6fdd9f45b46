// SavedMount: how a mount of `holdfast mount --persist` is made again after a reboot; a file each.
//
// Model    STATE_DIR/mounts/NAME.json, by mount point, holds what the command line said, without
//          what is secret: files of credentials by their paths, and a URL without its query, which
//          may be a signature.  sources/VOLUME.json has the query.
// Errors   every Status names the file.  EBADMSG: a file that is no such record, EPERM: one that
//          another user can change.  A bad file costs no other one.
// Threads  immutable value.  REQUIRES, to write and remove: LockInstance.
// Crash    written whole or not at all.
// See      docs/semantics.md "Mounts that come back"

#ifndef HOST_MOUNTS_SAVED_MOUNT_H_
#define HOST_MOUNTS_SAVED_MOUNT_H_

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cachecore/base/status.h"
#include "host/instance/instance.h"

namespace host {

struct SavedMount {
  std::string mount_point;
  std::string url;                   // As MountRecord has it.
  std::string volume;                // Whose source file has the query.
  std::string image;                 // A URL without its query, or an image reference.
  std::vector<std::string> origins;  // Further URLs.
  std::vector<std::string> options;  // Of `holdfast mount`, each with its value.
  std::map<std::string, std::string> environment;  // What the options' defaults depend on.
  // The settings.json that its instance had; null for one that systemd runs.
  nlohmann::json settings = nullptr;
  int64_t since_unix_s = 0;

  nlohmann::json ToJson() const;
  static SavedMount FromJson(const nlohmann::json& value);
};

struct SavedMountFile {
  std::string path;
  cachecore::Result<SavedMount> mount;
};

// Replaces the one of that mount point, also one of another instance beneath the same root.
cachecore::Status WriteSavedMount(const Instance& instance, const SavedMount& mount);
// False when there is none.
cachecore::Result<bool> RemoveSavedMount(const Instance& instance, const std::string& mount_point);
cachecore::Result<SavedMount> ReadSavedMount(const Instance& instance,
                                             const std::string& mount_point);
// By file name; the bad ones too.
std::vector<SavedMountFile> ListSavedMounts(const Instance& instance);

}  // namespace host

#endif  // HOST_MOUNTS_SAVED_MOUNT_H_
