#include "fusefs/cache_limits.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/cachecore/base/captured_log.h"
#include "tests/cachecore/cache/cache_rig.h"
#include "tests/cachecore/engine/engine_rig.h"
#include "tests/cachecore/store/forwarding_store.h"

namespace fusefs {
namespace {

using cachecore::ByteRange;
using cachecore::ObjectNumber;
using cachecore::Status;
namespace fs = std::filesystem;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kSize = 8 * kMiB;

// Takes no removal of presence of these objects.
class RefusingStore : public cachecore::ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  Status Commit(const cachecore::MetadataBatch& batch, cachecore::Sync sync) override {
    for (const auto& change : batch.remove_presence) {
      if (refused.contains(change.object.value)) return Status(EIO, "a bad block");
    }
    return ForwardingStore::Commit(batch, sync);
  }
  std::set<uint64_t> refused;
};

class CacheLimitsTest : public testing::Test {
 protected:
  CacheLimitsTest() {
    rig_.wrap_store = [this](std::unique_ptr<cachecore::MetadataStore> store) {
      auto wrapped = std::make_unique<RefusingStore>(std::move(store));
      store_ = wrapped.get();
      return wrapped;
    };
    rig_.Reopen();
  }
  // Objects that are present as a whole, the first one used least recently.
  void Add(int count) {
    for (int i = 0; i < count; ++i) {
      rig_.cookie = "object" + std::to_string(numbers_.size());
      numbers_.push_back(rig_.Acquire(kSize)->number);
      rig_.Write({0, kSize}, 'a');
      ASSERT_EQ(rig_.Execute(cachecore::wire::FilledCommand{rig_.live, {0, kSize}}), 0);
    }
    rig_.cache->Sync();
  }
  CacheLimits Limits(uint64_t max, uint64_t min_free = 0) {
    CacheLimitOptions options;
    options.max.bytes = max;
    options.min_free.bytes = min_free;
    return Limits(options);
  }
  CacheLimits Limits(const CacheLimitOptions& options) {
    return CacheLimits(options, clock_, rig_.cache.get(),
                       [this](const std::string&, const std::string& cookie) {
                         return mounted_.contains(cookie);
                       });
  }
  uint64_t Allocated(ObjectNumber number) {
    struct stat info;
    if (stat(rig_.cache->PathOfData(number).c_str(), &info) != 0) return 0;
    return static_cast<uint64_t>(info.st_blocks) * 512;
  }
  uint64_t Allocated() {
    uint64_t all = 0;
    for (const ObjectNumber number : numbers_) all += Allocated(number);
    return all;
  }
  // A directory in the place of the first file that an open makes: the database is kept in memory.
  void MakeDatabaseReadOnly() {
    rig_.cache.reset();
    fs::remove(rig_.directory + "/db/LOCK");
    fs::create_directory(rig_.directory + "/db/LOCK");
    rig_.Reopen();
  }
  void MakeDatabaseWritable() { fs::remove(rig_.directory + "/db/LOCK"); }

  cachecore::ManualClock clock_;
  cachecore::CacheRig rig_;
  RefusingStore* store_ = nullptr;
  std::vector<ObjectNumber> numbers_;
  std::set<std::string> mounted_;
};

TEST_F(CacheLimitsTest, AnObjectThatCannotBeCulledDoesNotStopTheOthers) {
  Add(4);
  store_->refused = {numbers_[0].value};
  mounted_ = {"object0", "object1", "object2", "object3"};
  Limits(2 * kSize).Keep();
  EXPECT_LE(Allocated(), 2 * kSize);
  EXPECT_GE(Allocated(numbers_[0]), kSize);
}

TEST_F(CacheLimitsTest, APartThatAReadWaitsForDoesNotKeepThePartsBesideIt) {
  const ByteRange first{0, 4 * kMiB}, second{4 * kMiB, 5 * kMiB};
  const ObjectNumber number = rig_.Acquire(kSize)->number;
  numbers_.push_back(number);
  for (const ByteRange range : {first, second}) {
    rig_.Write(range, 'a');
    ASSERT_EQ(rig_.Execute(cachecore::wire::FilledCommand{rig_.live, range}), 0);
  }
  rig_.cache->Sync();
  rig_.cache->Read(number, ByteRange::At(second.end, 4096), [](const Status&, const auto&) {});
  Limits(kMiB).Keep();
  EXPECT_FALSE(rig_.IsPresent(number, {0, 4096}));
  EXPECT_LE(Allocated(), 2 * kMiB);
}

TEST_F(CacheLimitsTest, ALimitThatIsChosenCountsFromTheNextLookOn) {
  Add(3);
  CacheLimits limits = Limits(0);
  limits.Keep();
  EXPECT_GE(Allocated(), 3 * kSize);
  EXPECT_EQ(limits.Describe()["max_source"], "flag");
  cachecore::LimitChange max{true, cachecore::SizeOrPercent{2 * kSize}};
  ASSERT_TRUE(rig_.cache->choices().ChangeLimits(max, {}).ok());
  limits.Keep();
  EXPECT_LE(Allocated(), 2 * kSize);
  EXPECT_EQ(limits.Describe()["max_source"], "limit");
  max.value = std::nullopt;  // The flag counts again.
  ASSERT_TRUE(rig_.cache->choices().ChangeLimits(max, {}).ok());
  EXPECT_EQ(limits.Describe()["max"], "none");
}

TEST_F(CacheLimitsTest, ALimitThatPinsPreventIsSaidOnceInASpell) {
  Add(3);
  for (const char* name : {"object0", "object1"}) {
    ASSERT_TRUE(rig_.cache->culler().SetPinned("volume", name, true).ok());
  }
  cachecore::CapturedLog log;
  CacheLimits limits = Limits(kSize);
  for (int round = 0; round < 3; ++round) {
    limits.Keep();
    clock_.now += std::chrono::seconds(2);
  }
  EXPECT_EQ(log.Count("are pinned"), 1);
  EXPECT_NE(limits.Describe()["trouble"], "");
  EXPECT_LT(Allocated(numbers_[2]), kMiB);
  EXPECT_TRUE(rig_.IsPresent(numbers_[0], {0, kSize}));
  EXPECT_TRUE(rig_.IsPresent(numbers_[1], {0, kSize}));
  ASSERT_TRUE(rig_.cache->culler().SetPinned("volume", "object0", false).ok());
  ASSERT_TRUE(rig_.cache->culler().SetPinned("volume", "object1", false).ok());
  for (int round = 0; round < 2; ++round) limits.Keep();
  EXPECT_LE(Allocated(), kSize);
  EXPECT_EQ(limits.Describe()["trouble"], "");
}

TEST_F(CacheLimitsTest, AFileOfNoObjectGoes) {
  Add(2);
  const ObjectNumber stray{4711};
  const fs::path path = rig_.cache->PathOfData(stray);
  fs::create_directories(path.parent_path());
  fs::copy_file(rig_.cache->PathOfData(numbers_[0]), path);
  // Not where such an object's file would be: it is not the cache's.
  const fs::path other = path.parent_path() / "1.data";
  fs::copy_file(path, other);
  mounted_ = {"object0", "object1"};
  Limits(2 * kSize + kMiB).Keep();
  EXPECT_FALSE(fs::exists(path));
  EXPECT_TRUE(fs::exists(other));
  EXPECT_GE(Allocated(), kSize);
}

TEST_F(CacheLimitsTest, WhereTheDatabaseTakesNoWritesWholeObjectsGoThatNoMountShows) {
  Add(3);
  mounted_ = {"object0"};
  MakeDatabaseReadOnly();
  Limits(2 * kSize).Keep();
  EXPECT_GE(Allocated(numbers_[0]), kSize);
  EXPECT_TRUE(rig_.IsPresent(numbers_[0], {0, kSize}));
  EXPECT_LE(Allocated(), 2 * kSize);
  // The next daemon finds the records on the disk, and nothing present of what is gone.
  MakeDatabaseWritable();
  rig_.Reopen();
  for (const ObjectNumber number : numbers_) {
    EXPECT_EQ(rig_.IsPresent(number, {0, 4096}), Allocated(number) > 0);
  }
  EXPECT_TRUE(rig_.IsPresent(numbers_[0], {0, kSize}));
}

TEST_F(CacheLimitsTest, WhereTheDatabaseTakesNoWritesWhatAMountShowsStays) {
  Add(2);
  mounted_ = {"object0", "object1"};
  MakeDatabaseReadOnly();
  cachecore::CapturedLog log;
  CacheLimits limits = Limits(kSize);
  limits.Keep();
  for (const ObjectNumber number : numbers_) EXPECT_TRUE(rig_.IsPresent(number, {0, kSize}));
  EXPECT_GE(Allocated(), 2 * kSize);
}

TEST_F(CacheLimitsTest, AReplyInUseIsWaitedForOnceARoundAndSaidOnce) {
  Add(1);
  mounted_ = {"object0"};
  rig_.Reopen();
  auto slice = rig_.cache->TryRead(numbers_[0], {0, 4096});
  ASSERT_TRUE(slice.ok() && slice->has_value());
  // Two parts, which are not beside each other, with a time of use each.
  rig_.cache->Expire();
  ASSERT_TRUE(rig_.IsPresent(numbers_[0], {0, 4096}));
  cachecore::CapturedLog log;
  CacheLimits limits = Limits(kMiB);
  for (int round = 0; round < 2; ++round) {
    const auto begin = cachecore::Clock::Monotonic().Now();
    limits.Keep();
    EXPECT_GE(cachecore::Clock::Monotonic().Now() - begin, std::chrono::milliseconds(500));
    EXPECT_TRUE(rig_.IsPresent(numbers_[0], {0, kSize}));
    clock_.now += std::chrono::seconds(2);
  }
  EXPECT_EQ(log.Count("above its limit"), 1);
  slice->reset();
  limits.Keep();
  EXPECT_LE(Allocated(), kMiB);
}

TEST_F(CacheLimitsTest, RoomThatCannotBeMadeIsSaidOnceAndWhatWasUsedLatelyStays) {
  Add(2);
  rig_.Reopen();
  const timespec long_ago[2] = {{1000, 0}, {1000, 0}};
  ASSERT_EQ(utimensat(AT_FDCWD, rig_.cache->PathOfData(numbers_[0]).c_str(), long_ago, 0), 0);
  mounted_ = {"object0", "object1"};
  cachecore::CapturedLog log;
  CacheLimits limits = Limits(0, uint64_t{1} << 60);
  for (int round = 0; round < 3; ++round) {
    limits.Keep();
    EXPECT_LT(Allocated(numbers_[0]), kMiB);
    EXPECT_GE(Allocated(numbers_[1]), kSize);
    clock_.now += std::chrono::seconds(2);
  }
  EXPECT_EQ(log.Count("cannot be left free"), 1);
}

TEST_F(CacheLimitsTest, ByDefaultRoomIsMadeOfWhatNoMountShows) {
  Add(2);
  mounted_ = {"object0"};
  cachecore::CapturedLog log;
  CacheLimitOptions options;
  options.min_free = {.bytes = uint64_t{1} << 60};
  options.min_free_by_default = true;
  CacheLimits limits = Limits(options);
  limits.Keep();
  EXPECT_TRUE(rig_.IsPresent(numbers_[0], {0, kSize}));
  EXPECT_LT(Allocated(numbers_[1]), kMiB);
  EXPECT_EQ(limits.Describe()["min_free_source"], "default");
  EXPECT_EQ(limits.Describe()["trouble"], "");
  mounted_.clear();
  limits.Keep();
  EXPECT_TRUE(rig_.IsPresent(numbers_[0], {0, kSize}));  // It does not look each time.
  clock_.now += std::chrono::minutes(2);
  limits.Keep();
  EXPECT_LT(Allocated(numbers_[0]), kMiB);
  // Who asks for it, gets it.
  Add(1);
  mounted_ = {"object2"};
  ASSERT_TRUE(rig_.cache->choices().ChangeLimits({}, {true, options.min_free}).ok());
  limits.Keep();
  EXPECT_EQ(log.Count("cannot be left free"), 1);
}

TEST_F(CacheLimitsTest, ByDefaultNothingGoesBeforeMountsHadTimeToCome) {
  Add(2);
  CacheLimitOptions options;
  options.max = {.bytes = kSize};
  options.min_free = {.bytes = uint64_t{1} << 60};
  options.max_by_default = options.min_free_by_default = true;
  CacheLimits limits = Limits(options);
  limits.AwaitMounts();
  limits.Keep();
  EXPECT_GE(Allocated(), 2 * kSize);
  EXPECT_EQ(limits.Describe()["trouble"], "");
  mounted_ = {"object0", "object1"};
  // What is mounted may go at once: an image that is larger than the disk has no other room.
  clock_.now += std::chrono::seconds(2);
  limits.Keep();
  EXPECT_LE(Allocated(), kSize);
  clock_.now += std::chrono::minutes(2);
  limits.Keep();
  EXPECT_LE(Allocated(), kSize);  // For the size; of the rest a mount shows what is left.
  EXPECT_GT(Allocated(), 0u);
}

}  // namespace
}  // namespace fusefs
