// RootfsRecord: what is remembered about one root file system for a container, one directory each.
//
// Model    StateDir()/rootfs/NAME is a runtime bundle: record.json, config.json, rootfs (where the
//          overlay is mounted) and, unless they are elsewhere, upper and work.  The record is
//          written first, in state "creating".  The process that makes or runs it
//          holds the directory's lock.
// Errors   every Status names the file.
// Crash    a lock goes with its process: what is "creating", or goes with its run, and is not
//          locked, is stale.
// See      docs/containers.md

#ifndef HOST_CONTAINERS_ROOTFS_RECORD_H_
#define HOST_CONTAINERS_ROOTFS_RECORD_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "host/instance/instance.h"

namespace host {

struct RootfsRecord {
  std::string name;
  std::string reference;                 // With the manifest's digest.
  std::string manifest;                  // Its digest.
  std::string erofs_digest;              // Of the image: what containers share.
  std::vector<std::string> mount_flags;  // How `holdfast mount` reaches it.
  std::string upper;                     // The directory that has upper and work.
  bool tmpfs = false;                    // It is a tmpfs of its own.
  bool own_upper = true;                 // It goes with the root file system.
  bool goes_with_run = false;            // Made by `holdfast run`.
  // Its root directory has no mode of its own: it is the layers' 0777.
  bool is_native = false;
  bool ready = false;
  int64_t since_unix_s = 0;
  std::string fuse_device;  // Of the FUSE mount that its overlay is on; "" when that isn't known.

  nlohmann::json ToJson() const;
  static RootfsRecord FromJson(const nlohmann::json& value);
};

std::string RootfsHome(const Instance& instance);
std::string RootfsBundle(const Instance& instance, const std::string& name);
// Where an image's one mount is, for all its containers.
std::string ImageMountPoint(const Instance& instance, const std::string& erofs_digest);

// EINVAL unless it is 1 to 64 characters of A-Za-z0-9_.- and begins with a letter or digit.
cachecore::Status CheckRootfsName(const std::string& name);
cachecore::Result<RootfsRecord> ReadRootfsRecord(const Instance& instance, const std::string& name);
cachecore::Status WriteRootfsRecord(const Instance& instance, const RootfsRecord& record);
// Those that can be read, by name.
std::vector<RootfsRecord> ListRootfsRecords(const Instance& instance);
// EBUSY while another process makes or runs it.
cachecore::Result<cachecore::UniqueFd> HoldRootfs(const Instance& instance,
                                                  const std::string& name);

}  // namespace host

#endif  // HOST_CONTAINERS_ROOTFS_RECORD_H_
