// RocksDbMetadataStoreTest: a metadata store on RocksDB in a directory of its own, and what tests
// put into it.

#ifndef TESTS_CACHECORE_STORE_ROCKSDB_STORE_FIXTURE_H_
#define TESTS_CACHECORE_STORE_ROCKSDB_STORE_FIXTURE_H_

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <sstream>
#include <string>

#include "cachecore/store/metadata_schema.h"
#include "cachecore/store/rocksdb_database.h"
#include "cachecore/store/rocksdb_metadata_store.h"

namespace cachecore {

namespace fs = std::filesystem;

constexpr char kBoot[] = "01234567-89ab-cdef-0123-456789abcdef";
constexpr char kNextBoot[] = "fedcba98-7654-3210-fedc-ba9876543210";
constexpr char kRootVariable[] = "HOLDFAST_TEST_STORE_ROOT";
constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kLeafBytes = PresenceLeaf::kBytes;
constexpr ObjectNumber kVolumeNumber{16};
constexpr ObjectNumber kObjectNumber{17};

inline VolumeRecord Volume() { return {kVolumeNumber, "images"}; }

inline Status KeepData(ObjectNumber) { return Status(); }

inline ObjectRecord Object(uint64_t number = kObjectNumber.value,
                           const std::string& cookie = "layer") {
  return {.number = {number},
          .volume = kVolumeNumber,
          .cookie = cookie,
          .size_bytes = 2 * kLeafBytes + 100,
          .stale = false,
          .attr = "etag"};
}

inline JournalRecord Request(uint32_t msg_id) {
  return {.msg_id = {msg_id},
          .opcode = 2,
          .object = kObjectNumber,
          .range = {0, 65536},
          .generation = {3}};
}

inline MetadataBatch VolumeBatch(uint64_t number) {
  MetadataBatch batch;
  batch.put_volumes.push_back({{number}, "volume " + std::to_string(number)});
  return batch;
}

// A store in a directory of its own.  A death test's child, which is this program again, uses its
// parent's directory.
class RocksDbMetadataStoreTest : public testing::Test {
 protected:
  RocksDbMetadataStoreTest() {
    testing::FLAGS_gtest_death_test_style = "threadsafe";
    if (const char* parents = std::getenv(kRootVariable)) {
      root_ = parents;
      directory_ = root_ + "/meta";
      return;
    }
    std::string pattern = testing::TempDir() + "holdfast_meta_XXXXXX";
    root_ = mkdtemp(pattern.data());
    directory_ = root_ + "/meta";
    setenv(kRootVariable, root_.c_str(), 1);
    owns_root_ = true;
  }
  ~RocksDbMetadataStoreTest() override {
    store_.reset();
    if (!owns_root_) return;
    unsetenv(kRootVariable);
    fs::remove_all(root_);
  }

  void Reopen(const char* boot_id = kBoot) {
    store_.reset();
    Result<std::unique_ptr<MetadataStore>> store = OpenRocksDbMetadataStore(directory_, boot_id);
    ASSERT_TRUE(store.ok()) << store.status().message();
    store_ = std::move(store).value();
  }
  Status OpenError() { return OpenRocksDbMetadataStore(directory_, kBoot).status(); }

  void Commit(const MetadataBatch& batch, Sync sync = Sync::kNo) {
    const Status status = store_->Commit(batch, sync);
    ASSERT_TRUE(status.ok()) << status.message();
  }
  // With its volume, and as if its number had been handed out.
  void PutObject(const ObjectRecord& object) {
    ASSERT_TRUE(store_->Reserve(Counter::kObjectNumber, 10000).ok());
    MetadataBatch batch;
    batch.put_volumes.push_back(Volume());
    batch.put_objects.push_back(object);
    Commit(batch);
  }
  void AddPresence(ObjectNumber object, ByteRange range, Presence presence) {
    if (!store_->LoadObject(object)->has_value()) {
      PutObject(Object(object.value, "object " + std::to_string(object.value)));
    }
    MetadataBatch batch;
    batch.add_presence.push_back({object, range, presence});
    Commit(batch);
  }
  PresenceMap PresenceOf(const ObjectRecord& object) {
    Result<PresenceMap> map = store_->LoadPresence(object.number, object.size_bytes);
    EXPECT_TRUE(map.ok()) << map.status().message();
    return map.ok() ? std::move(map).value() : PresenceMap(object.size_bytes);
  }
  std::set<uint64_t> VolumeNumbers() {
    std::set<uint64_t> numbers;
    const Status status = store_->ScanVolumes([&](const VolumeRecord& volume) {
      numbers.insert(volume.number.value);
      return true;
    });
    EXPECT_TRUE(status.ok()) << status.message();
    return numbers;
  }

  // Changes records behind the store's back.  Leaves it closed.
  void WriteRaw(const std::function<void(rocksdb::WriteBatch*)>& change) {
    store_.reset();
    Result<std::unique_ptr<RocksDbDatabase>> db = RocksDbDatabase::Open(directory_);
    ASSERT_TRUE(db.ok()) << db.status().message();
    rocksdb::WriteBatch batch;
    change(&batch);
    ASSERT_TRUE((*db)->Write(&batch, Sync::kYes).ok());
  }
  void PutRaw(const std::string& key, const std::string& value) {
    WriteRaw([&](rocksdb::WriteBatch* batch) { batch->Put(key, value); });
  }
  std::string Dump() {
    std::ostringstream out;
    const Status status = DumpRocksDbMetadata(directory_, out);
    EXPECT_TRUE(status.ok()) << status.message();
    return out.str();
  }

  // The largest file of the database with this extension.
  std::string FileOf(const std::string& extension) {
    std::string largest;
    for (const auto& entry : fs::directory_iterator(directory_)) {
      if (entry.path().extension() != extension) continue;
      if (largest.empty() || entry.file_size() > fs::file_size(largest)) largest = entry.path();
    }
    EXPECT_FALSE(largest.empty()) << "no " << extension;
    return largest;
  }
  static void Overwrite(const std::string& path, uint64_t offset, const std::string& bytes) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(offset));
    file << bytes;
    ASSERT_TRUE(file.good());
  }

  static void LimitFileSize(rlim_t bytes) {
    rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = std::min(bytes, limit.rlim_max);
    setrlimit(RLIMIT_FSIZE, &limit);
  }

  // The body of a process that commits `count` volumes, numbered from 100, and is then killed.
  void WriteVolumesAndDie(uint64_t count) {
    Reopen();
    for (uint64_t i = 0; i < count; ++i) Commit(VolumeBatch(100 + i));
    kill(getpid(), SIGKILL);
  }

  std::string root_;
  std::string directory_;
  bool owns_root_ = false;
  std::unique_ptr<MetadataStore> store_;
};

using RocksDbMetadataStoreDeathTest = RocksDbMetadataStoreTest;

}  // namespace cachecore

#endif  // TESTS_CACHECORE_STORE_ROCKSDB_STORE_FIXTURE_H_
