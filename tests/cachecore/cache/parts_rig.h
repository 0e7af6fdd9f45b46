// PartsRig: the parts of a Cache on a real RocksDB and real files in a temporary directory.
//
// Model    the store fails each Commit with `trouble` while that is an error.

#ifndef TESTS_CACHECORE_CACHE_PARTS_RIG_H_
#define TESTS_CACHECORE_CACHE_PARTS_RIG_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "cachecore/cache/catalogue.h"
#include "cachecore/cache/durability.h"
#include "cachecore/cache/reads.h"
#include "cachecore/store/rocksdb_metadata_store.h"
#include "tests/cachecore/engine/engine_rig.h"
#include "tests/cachecore/store/forwarding_store.h"

namespace cachecore {

class TroubledStore : public ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  Status Commit(const MetadataBatch& batch, Sync sync) override {
    return trouble.ok() ? ForwardingStore::Commit(batch, sync) : trouble;
  }
  Status trouble;
};

struct TemporaryDirectory {
  TemporaryDirectory() { EXPECT_NE(mkdtemp(path.data()), nullptr); }
  ~TemporaryDirectory() { std::filesystem::remove_all(path); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  std::string path = (std::filesystem::temp_directory_path() / "holdfast-XXXXXX").string();
};

class PartsRig {
 public:
  static constexpr size_t kMaxObjects = 8;

  PartsRig()
      : store(OpenRocksDbMetadataStore(directory + "/db", "00000000-0000-4000-8000-000000000001")
                  .value()),
        data(DataStore::Open(directory + "/data").value()) {
    EXPECT_TRUE(ids.EnsureIds().ok());
    volume = catalogue.AddVolume("volume").value();
  }

  // An object in the store and with a data file, of which `present` is present in this boot.
  ObjectNumber AddObject(const std::string& cookie, uint64_t size_bytes, ByteRange present = {}) {
    EXPECT_TRUE(ids.EnsureNumbers().ok());
    MetadataBatch batch;
    ObjectRecord record;
    record.number = ids.TakeNumber();
    record.volume = volume;
    record.cookie = cookie;
    record.size_bytes = size_bytes;
    if (!present.empty()) {
      batch.add_presence.push_back({record.number, present, Presence::kThisBoot});
    }
    batch.put_objects.push_back(record);
    EXPECT_TRUE(store.Commit(batch, Sync::kNo).ok());
    EXPECT_TRUE(data.Create(record.number, size_bytes).ok());
    return record.number;
  }
  bool IsInMemory(ObjectNumber number) {
    const MutexLock lock(&core.mu);
    return core.engine.Find(number) != nullptr;
  }
  uint64_t PresentBytes(ObjectNumber number) {
    const MutexLock lock(&core.mu);
    return core.engine.Find(number)->presence.present_bytes();
  }
  bool IsDurable(ObjectNumber number, ByteRange range, uint64_t size_bytes) {
    return store.LoadDurablePresence(number, size_bytes)->Covers(range);
  }
  bool HasFile(ObjectNumber number) const {
    return std::filesystem::exists(DataStore::PathIn(directory + "/data", number));
  }

  const TemporaryDirectory temporary;
  const std::string& directory = temporary.path;
  ManualClock clock;
  TroubledStore store;
  const DataStore data;
  TreeCache trees{16};
  LogLimiter log{clock};
  IdReserve ids{&store, 64};
  MetadataWriter writer{&store};
  GuardedEngine core{{}, clock, &ids, &writer, &log, [] {}};
  Catalogue catalogue{kMaxObjects, &store, data, &trees, &ids, &core};
  Reads reads{std::chrono::seconds(60), data, &ids, &core, &catalogue};
  Durability durability{clock, &store, data, &ids, &writer, &log, &core, &catalogue};
  ObjectNumber volume;
};

}  // namespace cachecore

#endif  // TESTS_CACHECORE_CACHE_PARTS_RIG_H_
