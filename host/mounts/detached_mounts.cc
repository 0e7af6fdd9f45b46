#include "host/mounts/detached_mounts.h"

#include <utility>

#include "cachecore/base/json_fields.h"
#include "cachecore/system/files.h"

namespace host {
namespace {

using cachecore::JsonField;
using cachecore::ReadJsonFile;
using cachecore::RecordText;
using cachecore::Result;
using cachecore::Status;
using cachecore::WriteFileAtomically;
using nlohmann::json;

std::string FileOf(const Instance& instance) { return instance.RunDir() + "/detached.json"; }

std::vector<MountRecord> ReadDetached(const Instance& instance) {
  std::vector<MountRecord> records;
  const Result<json> file = ReadJsonFile(FileOf(instance));
  if (!file.ok()) return records;
  for (const json& value : JsonField(*file, "mounts")) {
    records.push_back(MountRecord::FromJson(value));
  }
  return records;
}

}  // namespace

Status RememberDetached(const Instance& instance, const MountRecord& record) {
  if (record.superblock.empty()) return {};
  std::vector<MountRecord> records = ReadDetached(instance);
  std::erase_if(records, [&record](const MountRecord& earlier) {
    return earlier.superblock == record.superblock && earlier.mount_point == record.mount_point;
  });
  records.push_back(record);
  json mounts = json::array();
  for (const MountRecord& each : records) mounts.push_back(each.ToJson());
  return WriteFileAtomically(
      FileOf(instance), RecordText({{"version", 1}, {"mounts", std::move(mounts)}}) + "\n", 0600);
}

std::vector<MountRecord> ListDetached(const Instance& instance, const std::string& fuse_device) {
  std::vector<MountRecord> records = ReadDetached(instance);
  for (MountRecord& record : ListMountRecords(instance)) {
    if (record.mounted && !record.superblock.empty()) records.push_back(std::move(record));
  }
  std::erase_if(records, [&fuse_device](const MountRecord& record) {
    return !record.fuse_device.empty() && record.fuse_device != fuse_device;
  });
  return records;
}

}  // namespace host
