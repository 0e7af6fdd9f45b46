// What the model test of the cachefiles device acts on: a device over a Cache on a real store, and
// what is known of the messages that it gave.

#ifndef TESTS_FUSEFS_CACHEFILES_DEVICE_MODEL_H_
#define TESTS_FUSEFS_CACHEFILES_DEVICE_MODEL_H_

#include <fcntl.h>
#include <glog/logging.h>
#include <gtest/gtest.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <shared_mutex>
#include <string>
#include <utility>

#include "cachecore/base/unique_fd.h"
#include "cachecore/cache/cache.h"
#include "cachecore/store/rocksdb_metadata_store.h"
#include "fusefs/cachefiles/cachefiles_device.h"

namespace fusefs {

using cachecore::ByteRange;
using cachecore::Cache;
using cachecore::CacheOptions;
using cachecore::Clock;
using cachecore::DataStore;
using cachecore::MsgId;
using cachecore::ObjectId;
using cachecore::VolumeRecord;

constexpr int kLives = 5;  // Of each of ten tests, each with a seed of its own.
constexpr int kPrograms = 3;
constexpr int kReaders = 3;
constexpr int kStepsOfAProgram = 1400;  // 50 lives of 3 programs: 210,000 steps.
constexpr int kObjects = 4;
constexpr uint64_t kPage = 4096;
constexpr uint64_t kPages = 2048;  // More than are read: bytes are missing until the end.
constexpr uint64_t kSize = kPages * kPage - 1000;
constexpr size_t kMaxWrite = 1 << 20;

// What each page of an object is full of.
inline char ByteOf(int object, uint64_t page) {
  return static_cast<char>(page * 31 + static_cast<uint64_t>(object) * 7 + 1);
}

class Dice {
 public:
  explicit Dice(uint64_t seed) : random_(seed) {}
  int Below(int bound) { return std::uniform_int_distribution<>(0, bound - 1)(random_); }
  template <typename List>
  auto& PickFrom(List& list) {
    return list[static_cast<size_t>(Below(static_cast<int>(list.size())))];
  }

 private:
  std::mt19937_64 random_;
};

// What has happened in all lives.
struct Totals {
  std::atomic<int> steps, opens, reads, completions, right_bytes, killed_readers, restarts;
};
inline Totals totals;

// The device, as its server's one thread has it, and what is known of what it gave.
class World {
 public:
  World() {
    std::string pattern = (std::filesystem::temp_directory_path() / "holdfast-XXXXXX").string();
    directory_ = mkdtemp(pattern.data());
    std::filesystem::create_directory(directory_ + "/bound");
    Start({});
    Bind();
  }
  ~World() {
    device.reset();
    bound.reset();
    cache.reset();
    std::filesystem::remove_all(directory_);
  }

  const std::string& directory() const { return directory_; }

  // The daemon's next life, with what its DeviceMemory has; readers ask it once more.
  // REQUIRES: mu.  What the last step has done was kept.
  void Restart() {
    const std::unique_lock lock(life_mu);
    const std::set<uint32_t> before = PendingWithPrograms();
    cachecore::UniqueFd kept(fcntl(memory->memory(), F_DUPFD_CLOEXEC, 0));
    device.reset();
    bound.reset();
    memory.reset();
    cache.reset();
    Start(std::move(kept));
    cachecore::UniqueFd directory(open((directory_ + "/bound").c_str(), O_PATH | O_DIRECTORY));
    const cachecore::Status resumed = device->Resume(std::move(directory));
    ASSERT_TRUE(resumed.ok()) << resumed.message();
    // And those whose reader was killed since the last step.
    const std::set<uint32_t> after = PendingWithPrograms();
    EXPECT_TRUE(std::includes(after.begin(), after.end(), before.begin(), before.end()))
        << "a request that a program has and has not answered was forgotten";
    for (const auto& [id, open] : live) EXPECT_TRUE(device->HasObject(id)) << id.value;
    ++life;
    ++totals.restarts;
  }

  // The daemon's next life after the device was unmounted: its DeviceMemory is gone.
  void RestartWithoutMemory() {
    device.reset();
    bound.reset();
    memory.reset();
    cache.reset();
    Start({});
  }

  void Bind() {
    ASSERT_EQ(device->Open(getpid()), 0);
    for (const std::string& command :
         {"dir " + directory_ + "/bound", std::string("tag model"), std::string("bind ondemand")}) {
      ASSERT_EQ(device->Write(getpid(), command), static_cast<int64_t>(command.size())) << command;
    }
    KeepStep();
  }

  // As the server does before it answers: a restart may come next.
  void KeepStep() {
    device->Keep();
    memory->Commit();
  }

  // An OPEN or a READ that was delivered, at least once.
  struct Given {
    MsgId id;
    bool is_open = false;
    ObjectId object;  // Its instance, at the last delivery.
    int name = 0;
    ByteRange range;
    bool is_answered = false;
  };
  struct Live {
    int name = 0;
    CachefilesDevice::Handle handle = 0;
    bool has_size = false;
  };

  std::mutex mu;  // Everything below, but the cache.
  std::optional<CacheDirectory> bound;
  std::unique_ptr<DeviceMemory> memory;
  std::optional<CachefilesDevice> device;
  std::map<uint32_t, Given> given;
  std::set<uint32_t> unanswered;  // Of `given`.
  std::map<ObjectId, Live> live;
  std::set<ObjectId> seen;

  std::shared_mutex life_mu;  // Shared by calls of a reader; comes after mu.
  std::atomic<int> life = 0;
  std::unique_ptr<Cache> cache;
  VolumeRecord volume;

 private:
  std::set<uint32_t> PendingWithPrograms() const {
    std::set<uint32_t> ids;
    for (const cachecore::RequestInfo& request : cache->DescribeRequests()) {
      if (unanswered.contains(request.id.value)) ids.insert(request.id.value);
    }
    return ids;
  }
  void Start(cachecore::UniqueFd kept) {
    CacheOptions options;
    options.engine.exact = options.engine.kernel_instances = true;
    options.fail_on_detach = true;
    auto store = cachecore::OpenRocksDbMetadataStore(directory_ + "/db",
                                                     "00000000-0000-4000-8000-000000000001");
    CHECK(store.ok()) << store.status().message();
    auto data = DataStore::Open(directory_ + "/data");
    CHECK(data.ok()) << data.status().message();
    auto opened = Cache::Open(options, Clock::Monotonic(), std::move(store).value(),
                              std::move(data).value(), [] {});
    CHECK(opened.ok()) << opened.status().message();
    cache = std::move(opened).value();
    bound.emplace(cache.get(), [] {});
    memory = DeviceMemory::Open(std::move(kept)).value();
    device.emplace(cache.get(), &*bound, kMaxWrite, memory.get(), &store_, directory_ + "/mark");
    volume = {*cache->AddVolume("erofs,model"), "erofs,model"};
  }

  FdStore store_;  // Not available.
  std::string directory_;
};

}  // namespace fusefs

#endif  // TESTS_FUSEFS_CACHEFILES_DEVICE_MODEL_H_
