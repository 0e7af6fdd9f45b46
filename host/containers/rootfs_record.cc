#include "host/containers/rootfs_record.h"

#include <algorithm>
#include <cctype>
#include <cerrno>

#include "cachecore/base/json_fields.h"
#include "cachecore/system/files.h"

namespace host {
namespace {

using cachecore::JsonBool;
using cachecore::JsonInt;
using cachecore::JsonString;
using cachecore::JsonStrings;
using cachecore::ListDirectory;
using cachecore::ReadJsonFile;
using cachecore::RecordText;
using cachecore::Result;
using cachecore::Status;
using cachecore::TryLockDirectory;
using cachecore::UniqueFd;
using cachecore::WriteFileAtomically;
using nlohmann::json;

constexpr size_t kRootfsNameMax = 64;

std::string RootfsRecordFile(const Instance& instance, const std::string& name) {
  return RootfsBundle(instance, name) + "/record.json";
}

}  // namespace

json RootfsRecord::ToJson() const {
  return {{"version", 1},
          {"state", ready ? "ready" : "creating"},
          {"name", name},
          {"reference", reference},
          {"manifest", manifest},
          {"image", erofs_digest},
          {"mount_flags", mount_flags},
          {"upper", upper},
          {"tmpfs", tmpfs},
          {"own_upper", own_upper},
          {"goes_with_run", goes_with_run},
          {"native", is_native},
          {"time", since_unix_s},
          {"fuse_device", fuse_device}};
}

RootfsRecord RootfsRecord::FromJson(const json& value) {
  RootfsRecord record;
  record.name = JsonString(value, "name");
  record.reference = JsonString(value, "reference");
  record.manifest = JsonString(value, "manifest");
  record.erofs_digest = JsonString(value, "image");
  record.mount_flags = JsonStrings(value, "mount_flags");
  record.upper = JsonString(value, "upper");
  record.tmpfs = JsonBool(value, "tmpfs");
  record.own_upper = JsonBool(value, "own_upper", true);
  record.is_native = JsonBool(value, "native");
  record.goes_with_run = JsonBool(value, "goes_with_run");
  record.ready = JsonString(value, "state") == "ready";
  record.since_unix_s = JsonInt(value, "time");
  record.fuse_device = JsonString(value, "fuse_device");
  return record;
}

std::string RootfsHome(const Instance& instance) { return instance.StateDir() + "/rootfs"; }

std::string RootfsBundle(const Instance& instance, const std::string& name) {
  return RootfsHome(instance) + "/" + name;
}

std::string ImageMountPoint(const Instance& instance, const std::string& erofs_digest) {
  return instance.RunDir() + "/images/" + erofs_digest.substr(erofs_digest.find(':') + 1);
}

Status CheckRootfsName(const std::string& name) {
  const auto is_allowed = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '-';
  };
  if (!name.empty() && name.size() <= kRootfsNameMax &&
      std::isalnum(static_cast<unsigned char>(name[0])) &&
      std::all_of(name.begin(), name.end(), is_allowed)) {
    return {};
  }
  return Status(EINVAL, "'" + name +
                            "' is no name for a root file system; use 1 to 64 of A-Za-z0-9_.-, a "
                            "letter or digit first");
}

Result<RootfsRecord> ReadRootfsRecord(const Instance& instance, const std::string& name) {
  ASSIGN_OR_RETURN(const json value, ReadJsonFile(RootfsRecordFile(instance, name)));
  RootfsRecord record = RootfsRecord::FromJson(value);
  if (record.name == name) return record;
  return Status(EBADMSG, RootfsRecordFile(instance, name) + " is not its record");
}

Status WriteRootfsRecord(const Instance& instance, const RootfsRecord& record) {
  return WriteFileAtomically(RootfsRecordFile(instance, record.name),
                             RecordText(record.ToJson()) + "\n", 0600);
}

std::vector<RootfsRecord> ListRootfsRecords(const Instance& instance) {
  std::vector<RootfsRecord> records;
  for (const std::string& name : ListDirectory(RootfsHome(instance))) {
    Result<RootfsRecord> record = ReadRootfsRecord(instance, name);
    if (record.ok()) records.push_back(std::move(record).value());
  }
  return records;
}

Result<UniqueFd> HoldRootfs(const Instance& instance, const std::string& name) {
  Result<UniqueFd> fd = TryLockDirectory(RootfsBundle(instance, name));
  if (fd.ok() || fd.status().error() != EBUSY) return fd;
  return Status(EBUSY, "root file system " + name +
                           " is in use by another holdfast, which runs a container on it "
                           "or is making it; rootfs rm --force ends the container");
}

}  // namespace host
