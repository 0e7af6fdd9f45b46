#include "host/mounts/layer_mounts.h"

#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <set>
#include <utility>

#include "cachecore/base/digest.h"
#include "cachecore/system/files.h"
#include "host/mounts/detached_mounts.h"
#include "host/mounts/object_lease.h"

namespace host {
namespace {

using cachecore::DigestHex;
using cachecore::DigestOf;
using cachecore::ListDirectory;
using cachecore::Result;
using cachecore::Status;
using cachecore::TryLockDirectory;

constexpr size_t kPlaceDigits = 16;

bool IsAlive(const OwnMount& mount) {
  return mount.state == MountState::kMounted || mount.state == MountState::kMounting;
}

// The mount points of all layers that they list.
std::set<std::string> ListedLayers(const std::vector<MountRecord>& records) {
  std::set<std::string> listed;
  for (const MountRecord& record : records) {
    listed.insert(record.layers.begin(), record.layers.end());
  }
  return listed;
}

std::vector<MountRecord> RecordsOf(const std::vector<OwnMount>& mounts) {
  std::vector<MountRecord> records;
  for (const OwnMount& mount : mounts) records.push_back(mount.record);
  return records;
}

bool IsPlace(const Instance& instance, const std::string& mount_point) {
  return mount_point.starts_with(instance.LayersDir() + "/");
}

// The overlay has clones of its layers' mounts, so that a layer may be detached at any time.
void Release(const Instance& instance, const OwnMount& layer,
             const std::vector<MountRecord>& others, const MountRecord* used) {
  if (layer.is_here) (void)Detach(layer.entry);
  RemoveMountRecord(instance, layer.record);
  if (used == nullptr) return ReleaseObject(instance, layer.record, others);
  // Its users are found by the device of the overlay, which is that of the files they have open.
  MountRecord record = layer.record;
  record.superblock = used->superblock;
  const Status status = RememberDetached(instance, record);
  if (!status.ok()) std::cerr << "holdfast: " << status.message() << "\n";
}

}  // namespace

std::string LayerPlace(const Instance& instance, const std::string& volume,
                       const std::string& object) {
  return instance.LayersDir() + "/" +
         DigestHex(DigestOf(volume + "/" + object)).substr(0, kPlaceDigits);
}

void HideLayers(std::vector<OwnMount>* mounts) {
  const std::set<std::string> listed = ListedLayers(RecordsOf(*mounts));
  std::erase_if(*mounts, [&listed](const OwnMount& mount) {
    return listed.contains(mount.record.mount_point);
  });
}

void HideLayers(std::vector<MountRecord>* records) {
  const std::set<std::string> listed = ListedLayers(*records);
  std::erase_if(*records, [&listed](const MountRecord& record) {
    return listed.contains(record.mount_point);
  });
}

void HideUnusedLayers(const Instance& instance, std::vector<MountRecord>* records) {
  const std::set<std::string> listed = ListedLayers(*records);
  std::erase_if(*records, [&](const MountRecord& record) {
    return IsPlace(instance, record.mount_point) && !listed.contains(record.mount_point);
  });
}

std::vector<std::string> ShownAt(const MountRecord& record,
                                 const std::vector<MountRecord>& records) {
  std::vector<std::string> points;
  for (const MountRecord& other : records) {
    const auto& layers = other.layers;
    if (std::find(layers.begin(), layers.end(), record.mount_point) != layers.end()) {
      points.push_back(other.mount_point);
    }
  }
  if (points.empty()) points.push_back(record.mount_point);
  return points;
}

std::vector<MountRecord> ImagesOf(const Instance& instance, const MountRecord& record) {
  if (record.layers.empty()) return {record};
  std::vector<MountRecord> layers;
  for (const std::string& place : record.layers) {
    if (auto layer = ReadMountRecord(MountRecordFile(instance, place))) {
      layers.push_back(std::move(*layer));
    }
  }
  return layers;
}

void ReleaseUnusedLayers(const Instance& instance, const MountRecord* used) {
  if (access(instance.LayersDir().c_str(), F_OK) != 0) return;
  Result<std::vector<OwnMount>> mounts = ListMounts(instance);
  if (!mounts.ok()) return;
  std::vector<OwnMount> alive = *mounts;
  std::erase_if(alive, [](const OwnMount& mount) { return !IsAlive(mount); });
  const std::set<std::string> wanted = ListedLayers(RecordsOf(alive));
  const auto is_unused = [&](const OwnMount& mount) {
    const bool is_elsewhere = mount.state == MountState::kMounted && !mount.is_here;
    return IsPlace(instance, mount.record.mount_point) && !is_elsewhere &&
           mount.state != MountState::kMounting && !wanted.contains(mount.record.mount_point);
  };
  std::erase_if(alive, is_unused);
  std::erase_if(*mounts, [&](const OwnMount& mount) { return !is_unused(mount); });
  const std::vector<MountRecord> others = RecordsOf(alive);
  for (const OwnMount& layer : *mounts) Release(instance, layer, others, used);
  // Each is a lock's, unless it is held, or a mount point, unless there is a mount.  Those of what
  // is wanted may be about to be used.
  for (const std::string& name : ListDirectory(instance.LayersDir())) {
    const std::string place =
        instance.LayersDir() + "/" + name.substr(0, name.rfind(kLayerLockEnding));
    const std::string path = instance.LayersDir() + "/" + name;
    if (!wanted.contains(place) && TryLockDirectory(path).ok()) rmdir(path.c_str());
  }
  if (wanted.empty()) rmdir(instance.LayersDir().c_str());
}

}  // namespace host
