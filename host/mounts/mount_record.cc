#include "host/mounts/mount_record.h"

#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdio>

#include "cachecore/base/hex.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/system/files.h"

namespace host {
namespace {

using cachecore::JsonInt;
using cachecore::JsonString;
using cachecore::JsonStrings;
using cachecore::ListDirectory;
using cachecore::MakeDirectories;
using cachecore::ReadJsonFile;
using cachecore::RecordText;
using cachecore::Result;
using cachecore::Status;
using cachecore::WriteFileAtomically;
using nlohmann::json;

constexpr size_t kFileNameBytesMax = 200;

}  // namespace

json MountRecord::ToJson() const {
  json value = {{"version", 1},
                {"state", mounted ? "mounted" : "mounting"},
                {"mount_point", mount_point},
                {"url", url},
                {"manifest", manifest},
                {"volume", volume},
                {"object", object},
                {"as", kind},
                {"device", device},
                {"offset", offset},
                {"pid", claimed_by},
                {"pid_started", claimer_started},
                {"time", since_unix_s},
                {"mount_id", mount_id},
                {"superblock", superblock},
                {"fuse_device", fuse_device}};
  if (!layers.empty()) value["layers"] = layers;
  return value;
}

MountRecord MountRecord::FromJson(const json& value) {
  MountRecord record;
  record.mount_point = JsonString(value, "mount_point");
  record.url = JsonString(value, "url");
  record.manifest = JsonString(value, "manifest");
  record.volume = JsonString(value, "volume");
  record.object = JsonString(value, "object");
  record.kind = JsonString(value, "as");
  record.device = JsonString(value, "device");
  record.offset = static_cast<uint64_t>(JsonInt(value, "offset"));
  record.mounted = JsonString(value, "state") == "mounted";
  record.claimed_by = static_cast<pid_t>(JsonInt(value, "pid"));
  record.claimer_started = static_cast<uint64_t>(JsonInt(value, "pid_started"));
  record.since_unix_s = JsonInt(value, "time");
  record.mount_id = static_cast<int>(JsonInt(value, "mount_id"));
  record.superblock = JsonString(value, "superblock");
  record.fuse_device = JsonString(value, "fuse_device");
  record.layers = JsonStrings(value, "layers");
  return record;
}

// '/' becomes '-', what isn't plain %XX.
std::string MountFileName(const std::string& mount_point) {
  std::string name;
  for (const char c : mount_point.substr(std::min<size_t>(1, mount_point.size()))) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '/') {
      name += '-';
    } else if (std::isalnum(byte) || c == '_' || c == '.') {
      name += c;
    } else {
      name += '%' + cachecore::UpperHexText({&c, 1});
    }
  }
  if (name.size() <= kFileNameBytesMax) return name;
  char hash[18];
  std::snprintf(hash, sizeof hash, "-%016llx",
                static_cast<unsigned long long>(XXH64(mount_point.data(), mount_point.size(), 0)));
  return name.substr(0, kFileNameBytesMax) + hash;
}

std::string MountRecordFile(const Instance& instance, const std::string& mount_point) {
  return instance.MountsDir() + "/" + MountFileName(mount_point) + ".json";
}

Status ClaimMountPoint(const Instance& instance, const MountRecord& record) {
  RETURN_IF_ERROR(MakeDirectories(instance.MountsDir(), 0700));
  const std::string path = MountRecordFile(instance, record.mount_point);
  // A file that is no record is what an earlier version left that was killed as it made its claim.
  if (ReadJsonFile(path).ok()) return Status(EEXIST, path + " is there already");
  return WriteFileAtomically(path, RecordText(record.ToJson()) + "\n", 0600);
}

Status UpdateMountRecord(const Instance& instance, const MountRecord& record) {
  return WriteFileAtomically(MountRecordFile(instance, record.mount_point),
                             RecordText(record.ToJson()) + "\n", 0600);
}

void RemoveMountRecord(const Instance& instance, const std::string& mount_point) {
  unlink(MountRecordFile(instance, mount_point).c_str());
}

void RemoveMountRecord(const Instance& instance, const MountRecord& record) {
  if (record.file.empty()) return RemoveMountRecord(instance, record.mount_point);
  unlink(record.file.c_str());
}

std::vector<std::string> ListMountRecordFiles(const Instance& instance) {
  std::vector<std::string> files;
  for (const std::string& name : ListDirectory(instance.MountsDir())) {
    if (name.ends_with(".json")) files.push_back(instance.MountsDir() + "/" + name);
  }
  return files;
}

std::optional<MountRecord> ReadMountRecord(const std::string& file) {
  const Result<json> value = ReadJsonFile(file);
  if (!value.ok() || JsonString(*value, "mount_point").empty()) return std::nullopt;
  MountRecord record = MountRecord::FromJson(*value);
  record.file = file;
  return record;
}

std::vector<MountRecord> ListMountRecords(const Instance& instance) {
  std::vector<MountRecord> records;
  for (const std::string& file : ListMountRecordFiles(instance)) {
    if (std::optional<MountRecord> record = ReadMountRecord(file)) {
      records.push_back(std::move(*record));
    }
  }
  std::sort(records.begin(), records.end(),
            [](const auto& a, const auto& b) { return a.mount_point < b.mount_point; });
  return records;
}

}  // namespace host
