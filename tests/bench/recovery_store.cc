// recovery_store DIRECTORY OBJECTS RANGES: writes the metadata of OBJECTS objects with RANGES
// present ranges each, as a daemon of this boot leaves it; every other object's are durable.
//
// Model    a range is one block and the next block is missing, so that no two join.  There are no
//          data files: no process opens these objects.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "cachecore/store/boot_id.h"
#include "cachecore/store/rocksdb_metadata_store.h"
#include "cachecore/values/presence_leaf.h"
#include "cachecore/values/presence_map.h"

namespace cachecore {
namespace {

constexpr uint64_t kObjectsOfABatch = 100;
constexpr uint64_t kVolumes = 10;

void AddObject(const VolumeRecord& volume, ObjectNumber number, uint64_t ranges,
               MetadataBatch* batch) {
  ObjectRecord object;
  object.number = number;
  object.volume = volume.number;
  object.cookie = "object-" + std::to_string(number.value);
  object.size_bytes = 2 * ranges * kBlockSize;
  const Presence presence = number.value % 2 == 0 ? Presence::kDurable : Presence::kThisBoot;
  for (uint64_t i = 0; i < ranges; ++i) {
    const uint64_t begin = 2 * i * kBlockSize;
    batch->add_presence.push_back({number, {begin, begin + kBlockSize}, presence});
  }
  batch->put_objects.push_back(std::move(object));
}

Status Write(const std::string& directory, uint64_t objects, uint64_t ranges) {
  const std::string cache = std::filesystem::path(directory).parent_path();
  ASSIGN_OR_RETURN(const std::string boot_id, ReadBootId(cache));
  ASSIGN_OR_RETURN(const std::unique_ptr<MetadataStore> store,
                   OpenRocksDbMetadataStore(directory, boot_id));
  ASSIGN_OR_RETURN(const uint64_t first,
                   store->Reserve(Counter::kObjectNumber, objects + kVolumes));
  MetadataBatch batch;
  for (uint64_t i = 0; i < kVolumes; ++i) {
    batch.put_volumes.push_back({ObjectNumber{first + i}, "volume-" + std::to_string(i)});
  }
  const std::vector<VolumeRecord> volumes = batch.put_volumes;
  for (uint64_t i = 0; i < objects; ++i) {
    AddObject(volumes[i % kVolumes], ObjectNumber{first + kVolumes + i}, ranges, &batch);
    if ((i + 1) % kObjectsOfABatch != 0 && i + 1 != objects) continue;
    RETURN_IF_ERROR(store->Commit(batch, Sync::kNo));
    batch = {};
  }
  return Status();
}

}  // namespace
}  // namespace cachecore

int main(int argc, char** argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: recovery_store DIRECTORY OBJECTS RANGES\n");
    return 2;
  }
  const cachecore::Status written =
      cachecore::Write(argv[1], strtoull(argv[2], nullptr, 10), strtoull(argv[3], nullptr, 10));
  if (!written.ok()) fprintf(stderr, "recovery_store: %s\n", written.message().c_str());
  return written.ok() ? 0 : 1;
}
