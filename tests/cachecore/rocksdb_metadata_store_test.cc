#include "cachecore/boot_id.h"
#include "cachecore/rocksdb_metadata_store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "cachecore/metadata_schema.h"
#include "cachecore/rocksdb_database.h"
#include "cachecore/unique_fd.h"

namespace cachecore {
namespace {

namespace fs = std::filesystem;

constexpr char kBoot[] = "01234567-89ab-cdef-0123-456789abcdef";
constexpr char kNextBoot[] = "fedcba98-7654-3210-fedc-ba9876543210";
constexpr char kRootVariable[] = "HOLDFAST_TEST_STORE_ROOT";
constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kLeafBytes = PresenceLeaf::kBytes;
constexpr ObjectNumber kVolumeNumber{16};
constexpr ObjectNumber kObjectNumber{17};

VolumeRecord Volume() { return {kVolumeNumber, "images"}; }

ObjectRecord Object(uint64_t number = kObjectNumber.value, const std::string& cookie = "layer") {
  return {.number = {number},
          .volume = kVolumeNumber,
          .cookie = cookie,
          .size_bytes = 2 * kLeafBytes + 100,
          .stale = false,
          .attr = "etag"};
}

JournalRecord Request(uint32_t msg_id) {
  return {.msg_id = {msg_id},
          .opcode = 2,
          .object = kObjectNumber,
          .range = {0, 65536},
          .generation = {3}};
}

MetadataBatch VolumeBatch(uint64_t number) {
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

TEST_F(RocksDbMetadataStoreTest, AnEmptyStoreHasNothing) {
  Reopen();
  EXPECT_FALSE(store_->FindVolume("images")->has_value());
  EXPECT_FALSE(store_->LoadVolume(kVolumeNumber)->has_value());
  EXPECT_FALSE(store_->FindObject(kVolumeNumber, "layer")->has_value());
  EXPECT_FALSE(store_->LoadObject(kObjectNumber)->has_value());
  EXPECT_EQ(PresenceOf(Object()).present_bytes(), 0u);
  EXPECT_TRUE(store_->LoadJournal()->empty());
  EXPECT_TRUE(VolumeNumbers().empty());
  struct stat info;
  ASSERT_EQ(stat(directory_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0700u);
}

TEST_F(RocksDbMetadataStoreTest, AVolumeIsFoundByKeyAndByNumberAfterReopening) {
  Reopen();
  MetadataBatch batch;
  batch.put_volumes.push_back(Volume());
  Commit(batch);
  Reopen();
  EXPECT_EQ((*store_->FindVolume("images"))->number, kVolumeNumber);
  EXPECT_EQ((*store_->LoadVolume(kVolumeNumber))->key, "images");
  EXPECT_FALSE(store_->FindVolume("image")->has_value());
  EXPECT_EQ(VolumeNumbers(), std::set<uint64_t>{16});
}

TEST_F(RocksDbMetadataStoreTest, AnObjectIsFoundByCookieAndByNumberAfterReopening) {
  Reopen();
  ObjectRecord object = Object();
  object.stale = true;
  PutObject(object);
  Reopen();
  EXPECT_EQ(**store_->FindObject(kVolumeNumber, "layer"), kObjectNumber);
  EXPECT_FALSE(store_->FindObject({15}, "layer")->has_value());
  const std::optional<ObjectRecord> loaded = *store_->LoadObject(kObjectNumber);
  ASSERT_TRUE(loaded.has_value());
  EXPECT_EQ(loaded->volume, kVolumeNumber);
  EXPECT_EQ(loaded->cookie, "layer");
  EXPECT_EQ(loaded->size_bytes, object.size_bytes);
  EXPECT_TRUE(loaded->stale);
  EXPECT_EQ(loaded->attr, "etag");
}

TEST_F(RocksDbMetadataStoreTest, ObjectsAreListedPerVolumeInOrderOfNumber) {
  Reopen();
  for (const uint64_t number : {300u, 17u, 40u}) PutObject(Object(number, std::to_string(number)));
  ObjectRecord elsewhere = Object(20, "elsewhere");
  elsewhere.volume = {15};
  PutObject(elsewhere);
  std::vector<uint64_t> numbers;
  const auto collect = [&](const ObjectRecord& object) {
    numbers.push_back(object.number.value);
    return numbers.size() < 2;
  };
  ASSERT_TRUE(store_->ScanObjects(kVolumeNumber, collect).ok());
  EXPECT_EQ(numbers, (std::vector<uint64_t>{17, 40}));
  ASSERT_TRUE(store_->ScanObjects({15}, collect).ok());
  EXPECT_EQ(numbers.back(), 20u);
}

TEST_F(RocksDbMetadataStoreTest, TheJournalKeepsWhatWasNotErased) {
  Reopen();
  MetadataBatch batch;
  for (uint32_t id = 0; id < 3; ++id) batch.put_journal.push_back(Request(id));
  batch.erase_journal.push_back({1});
  Commit(batch);
  Reopen();
  const std::vector<JournalRecord> journal = *store_->LoadJournal();
  ASSERT_EQ(journal.size(), 2u);
  EXPECT_EQ(journal[0].msg_id.value, 0u);
  EXPECT_EQ(journal[1].msg_id.value, 2u);
  EXPECT_EQ(journal[1].opcode, 2u);
  EXPECT_EQ(journal[1].object, kObjectNumber);
  EXPECT_EQ(journal[1].range, (ByteRange{0, 65536}));
  EXPECT_EQ(journal[1].generation.value, 3u);
}

TEST_F(RocksDbMetadataStoreTest, PresenceOfThisBootIsTrustedUntilTheNext) {
  Reopen();
  AddPresence(kObjectNumber, {0, kMiB}, Presence::kThisBoot);
  AddPresence(kObjectNumber, {2 * kMiB, 3 * kMiB}, Presence::kDurable);
  Reopen(kBoot);
  EXPECT_EQ(PresenceOf(Object()).present_bytes(), 2 * kMiB);
  EXPECT_EQ(store_->LoadDurablePresence(kObjectNumber, kLeafBytes)->present_bytes(), kMiB);
  Reopen(kNextBoot);
  EXPECT_EQ(PresenceOf(Object()).Gaps({0, 4 * kMiB}),
            (std::vector<ByteRange>{{0, 2 * kMiB}, {3 * kMiB, 4 * kMiB}}));
  Reopen(kBoot);
  EXPECT_FALSE(PresenceOf(Object()).Covers({0, kMiB})) << "presence of an earlier boot came back";
}

TEST_F(RocksDbMetadataStoreTest, ObjectsWithPresenceThatIsNotDurableAreFound) {
  Reopen();
  const ObjectNumber durable{20}, part{21}, none{22}, second_leaf{23}, other_boot{24};
  AddPresence(other_boot, {0, kMiB}, Presence::kThisBoot);
  Reopen(kNextBoot);
  for (const ObjectNumber number : {durable, part, none, second_leaf}) {
    AddPresence(number, {0, kMiB}, Presence::kThisBoot);
    AddPresence(number, {2 * kMiB, kLeafBytes + kMiB}, Presence::kThisBoot);
  }
  AddPresence(durable, {0, 2 * kLeafBytes}, Presence::kDurable);
  AddPresence(part, {kMiB, 2 * kLeafBytes}, Presence::kDurable);
  AddPresence(second_leaf, {0, kLeafBytes}, Presence::kDurable);
  EXPECT_EQ(*store_->FindUndurable(), (std::vector<ObjectNumber>{part, none, second_leaf}));
}

TEST_F(RocksDbMetadataStoreTest, PresenceMayCrossLeavesAndEndAtTheObjectsEnd) {
  Reopen();
  const ObjectRecord object = Object();
  const ByteRange range{kLeafBytes - 4096, object.size_bytes};
  AddPresence(object.number, range, Presence::kDurable);
  AddPresence({object.number.value + 1}, {0, kMiB}, Presence::kDurable);
  Reopen();
  EXPECT_EQ(PresenceOf(object).present_bytes(), range.size());
  EXPECT_TRUE(PresenceOf(object).Covers(range));
}

TEST_F(RocksDbMetadataStoreTest, ManySmallFillsAddUp) {
  Reopen();
  const ObjectRecord object = Object();
  PresenceMap expected(object.size_bytes);
  for (uint64_t i = 0; i < 3000; ++i) {
    const ByteRange range = ByteRange::At(i * 7919 % 60000 * 4096, 4096);
    expected.Add(range);
    AddPresence(object.number, range, i % 2 ? Presence::kDurable : Presence::kThisBoot);
    if (i % 1000 == 999) Reopen();
  }
  const ByteRange all{0, object.size_bytes};
  EXPECT_EQ(PresenceOf(object).Gaps(all), expected.Gaps(all));
}

TEST_F(RocksDbMetadataStoreTest, AnErasedObjectLeavesNothing) {
  Reopen();
  PutObject(Object());
  PutObject(Object(18, "neighbour"));
  for (const Presence presence : {Presence::kDurable, Presence::kThisBoot}) {
    AddPresence(kObjectNumber, {0, 2 * kLeafBytes}, presence);
    AddPresence({18}, {0, kMiB}, presence);
  }
  MetadataBatch batch;
  batch.erase_objects.push_back(Object());
  Commit(batch);
  Reopen();
  EXPECT_FALSE(store_->FindObject(kVolumeNumber, "layer")->has_value());
  EXPECT_FALSE(store_->LoadObject(kObjectNumber)->has_value());
  EXPECT_EQ(PresenceOf(Object()).present_bytes(), 0u);
  EXPECT_EQ(PresenceOf(Object(18)).present_bytes(), kMiB);
  EXPECT_EQ(Dump().find("=17"), std::string::npos);
}

TEST_F(RocksDbMetadataStoreTest, AnObjectIsReplacedInOneBatchOrInTwo) {
  Reopen();
  PutObject(Object(17));
  MetadataBatch at_once;
  at_once.put_objects.push_back(Object(18));
  at_once.erase_objects.push_back(Object(17));
  Commit(at_once);
  EXPECT_EQ((*store_->FindObject(kVolumeNumber, "layer"))->value, 18u);
  PutObject(Object(19));
  MetadataBatch old_one;
  old_one.erase_objects.push_back(Object(18));
  Commit(old_one);
  EXPECT_EQ((*store_->FindObject(kVolumeNumber, "layer"))->value, 19u);
  EXPECT_FALSE(store_->LoadObject({18})->has_value());
}

TEST_F(RocksDbMetadataStoreTest, CountersStartWhereTheyShouldAndNeverRecur) {
  Reopen();
  EXPECT_EQ(*store_->Reserve(Counter::kMsgId, 10), 0u);
  EXPECT_EQ(*store_->Reserve(Counter::kObjectId, 10), 1u);
  EXPECT_EQ(*store_->Reserve(Counter::kObjectNumber, 10), 16u);
  EXPECT_EQ(*store_->Reserve(Counter::kGeneration, 1), 1u);
  EXPECT_EQ(*store_->Reserve(Counter::kMsgId, 1), 10u);
  Reopen();
  EXPECT_EQ(*store_->Reserve(Counter::kMsgId, 10), 11u);
  Reopen(kNextBoot);
  EXPECT_EQ(*store_->Reserve(Counter::kMsgId, 10), 21u);
  EXPECT_EQ(*store_->Reserve(Counter::kObjectNumber, 10), 26u);
  EXPECT_EQ(*store_->Reserve(Counter::kGeneration, 1), 2u);
}

TEST_F(RocksDbMetadataStoreTest, ADamagedCounterGoesOnPastEveryNumberInUse) {
  Reopen();
  PutObject(Object(5000));
  MetadataBatch batch;
  batch.put_journal.push_back(Request(7000));
  Commit(batch);
  for (const Counter counter : {Counter::kObjectNumber, Counter::kMsgId}) {
    PutRaw(schema::CounterKey(counter), "garbage");
  }
  Reopen();
  EXPECT_GT(*store_->Reserve(Counter::kObjectNumber, 1), 5000u + 1000000);
  EXPECT_GT(*store_->Reserve(Counter::kMsgId, 1), 7000u + 1000000);
  EXPECT_NE(Dump().find("quarantined object=0 key=\"C\\x00\" value=\"garbage\""),
            std::string::npos);
}

TEST_F(RocksDbMetadataStoreTest, ADamagedObjectIsQuarantinedAndTheRestIsServed) {
  Reopen();
  PutObject(Object());
  PutObject(Object(18, "neighbour"));
  AddPresence(kObjectNumber, {0, kMiB}, Presence::kDurable);
  PutRaw(schema::ObjectKey(kObjectNumber), "garbage");
  Reopen();
  EXPECT_EQ(store_->LoadObject(kObjectNumber).status().error(), EBADMSG);
  ASSERT_TRUE(store_->QuarantineObject(kObjectNumber, kVolumeNumber, "layer").ok());
  Reopen();
  EXPECT_FALSE(store_->LoadObject(kObjectNumber)->has_value());
  EXPECT_FALSE(store_->FindObject(kVolumeNumber, "layer")->has_value());
  EXPECT_EQ(PresenceOf(Object()).present_bytes(), 0u);
  EXPECT_EQ((*store_->LoadObject({18}))->cookie, "neighbour");
  const std::string dump = Dump();
  EXPECT_NE(dump.find("quarantined object=17 key=\"O\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x11\" "
                      "value=\"garbage\""),
            std::string::npos)
      << dump;
}

TEST_F(RocksDbMetadataStoreTest, ADamagedObjectWhoseCookieIsUnknownLosesItsIndexRecordToo) {
  Reopen();
  PutObject(Object());
  PutObject(Object(18, "neighbour"));
  PutRaw(schema::ObjectKey(kObjectNumber), "garbage");
  Reopen();
  ASSERT_TRUE(store_->QuarantineObject(kObjectNumber, {}, "").ok());
  EXPECT_FALSE(store_->FindObject(kVolumeNumber, "layer")->has_value());
  EXPECT_TRUE(store_->FindObject(kVolumeNumber, "neighbour")->has_value());
}

TEST_F(RocksDbMetadataStoreTest, ADamagedIndexRecordTakesItsObjectWithItThoughTheNumberIsUnknown) {
  Reopen();
  PutObject(Object());
  PutObject(Object(18, "neighbour"));
  PutRaw(schema::ObjectIndexKey(kVolumeNumber, "layer"), "garbage");
  Reopen();
  EXPECT_EQ(store_->FindObject(kVolumeNumber, "layer").status().error(), EBADMSG);
  ASSERT_TRUE(store_->QuarantineObject({}, kVolumeNumber, "layer").ok());
  EXPECT_FALSE(store_->FindObject(kVolumeNumber, "layer")->has_value());
  EXPECT_FALSE(store_->LoadObject(kObjectNumber)->has_value());
  EXPECT_TRUE(store_->LoadObject({18})->has_value());
}

TEST_F(RocksDbMetadataStoreTest, ADamagedPresenceOperandIsSeenWhateverIsMergedAfterIt) {
  Reopen();
  PutObject(Object());
  AddPresence(kObjectNumber, {0, kMiB}, Presence::kDurable);
  const std::string key = schema::PresenceKey(schema::DurablePresencePrefix(kObjectNumber), 0);
  WriteRaw([&](rocksdb::WriteBatch* batch) { batch->Merge(key, "garbage"); });
  Reopen();
  AddPresence(kObjectNumber, {2 * kMiB, 3 * kMiB}, Presence::kDurable);
  AddPresence({18}, {0, kMiB}, Presence::kDurable);
  Reopen();
  const Status status = store_->LoadPresence(kObjectNumber, Object().size_bytes).status();
  EXPECT_EQ(status.error(), EBADMSG);
  EXPECT_EQ(status.message().find("presence of object 17: "), 0u) << status.message();
  EXPECT_EQ(PresenceOf(Object(18)).present_bytes(), kMiB);
  ASSERT_TRUE(store_->QuarantineObject(kObjectNumber, kVolumeNumber, "layer").ok());
  EXPECT_EQ(PresenceOf(Object()).present_bytes(), 0u);
  EXPECT_NE(Dump().find("value=\"\\xffgarbage\""), std::string::npos);
}

TEST_F(RocksDbMetadataStoreTest, ADamagedRequestIsLeftOutAndQuarantined) {
  Reopen();
  MetadataBatch batch;
  for (uint32_t id = 1; id <= 3; ++id) batch.put_journal.push_back(Request(id));
  Commit(batch);
  PutRaw(schema::JournalKey({2}), "garbage");
  Reopen();
  EXPECT_EQ(store_->LoadJournal()->size(), 2u);
  EXPECT_NE(Dump().find("quarantined object=0 key=\"R\\x00\\x00\\x00\\x02\""), std::string::npos);
}

TEST_F(RocksDbMetadataStoreTest, EachOfAVolumesRecordsRestoresTheOther) {
  Reopen();
  MetadataBatch batch;
  batch.put_volumes.push_back(Volume());
  Commit(batch);
  PutRaw(schema::VolumeIndexKey("images"), "garbage");
  Reopen();
  EXPECT_EQ((*store_->FindVolume("images"))->number, kVolumeNumber);
  PutRaw(schema::VolumeKey(kVolumeNumber), "garbage");
  Reopen();
  EXPECT_EQ((*store_->LoadVolume(kVolumeNumber))->key, "images");
  Reopen();
  EXPECT_EQ(VolumeNumbers(), std::set<uint64_t>{16});
  PutRaw(schema::VolumeIndexKey("images"), "garbage");
  PutRaw(schema::VolumeKey(kVolumeNumber), "garbage");
  Reopen();
  EXPECT_FALSE(store_->FindVolume("images")->has_value());
}

TEST_F(RocksDbMetadataStoreTest, ABadBlockOnDiskCostsItsRecordsAndNotTheStore) {
  Reopen();
  constexpr uint64_t kObjects = 400;
  for (uint64_t i = 0; i < kObjects; ++i) PutObject(Object(100 + i, std::to_string(i)));
  Reopen();  // The log becomes a table file.
  store_.reset();
  const std::string table = FileOf(".sst");
  Overwrite(table, fs::file_size(table) / 2, "garbage");
  Reopen();
  std::vector<uint64_t> bad;
  for (uint64_t i = 0; i < kObjects; ++i) {
    const Result<std::optional<ObjectRecord>> object = store_->LoadObject({100 + i});
    if (object.ok() && object->has_value()) continue;
    ASSERT_EQ(object.status().error(), EBADMSG) << i;
    bad.push_back(i);
  }
  ASSERT_FALSE(bad.empty());
  const auto visit_all = [](const ObjectRecord&) { return true; };
  EXPECT_EQ(store_->ScanObjects(kVolumeNumber, visit_all).error(), EBADMSG);
  EXPECT_LT(bad.size(), kObjects / 4);
  for (const uint64_t i : bad) {
    ASSERT_TRUE(store_->QuarantineObject({100 + i}, kVolumeNumber, std::to_string(i)).ok());
  }
  // Enough table files for compactions to run into the bad block.
  for (uint64_t i = 0; i < 6; ++i) {
    Reopen();
    PutObject(Object(1000 + i, "new " + std::to_string(i)));
  }
  for (const uint64_t i : bad) EXPECT_FALSE(store_->LoadObject({100 + i})->has_value());
  EXPECT_TRUE(store_->LoadObject({100})->has_value());
  EXPECT_TRUE(store_->LoadObject({1005})->has_value());
  EXPECT_TRUE(store_->LoadJournal().ok());
}

TEST_F(RocksDbMetadataStoreDeathTest, AKilledWriterLosesNothing) {
  EXPECT_EXIT(WriteVolumesAndDie(500), testing::KilledBySignal(SIGKILL), "");
  Reopen();
  EXPECT_EQ(VolumeNumbers().size(), 500u);
}

TEST_F(RocksDbMetadataStoreDeathTest, ATornLogTailCostsTheLastCommitOnly) {
  EXPECT_EXIT(WriteVolumesAndDie(50), testing::KilledBySignal(SIGKILL), "");
  const std::string log = FileOf(".log");
  fs::resize_file(log, fs::file_size(log) - 3);
  Reopen();
  EXPECT_EQ(VolumeNumbers().size(), 49u);
  EXPECT_FALSE(VolumeNumbers().contains(149));
}

TEST_F(RocksDbMetadataStoreDeathTest, ALogDamagedInItsMiddleKeepsWhatCameBeforeAndNothingAfter) {
  EXPECT_EXIT(WriteVolumesAndDie(2000), testing::KilledBySignal(SIGKILL), "");
  const std::string log = FileOf(".log");
  Overwrite(log, fs::file_size(log) / 2, "garbage");
  Reopen();
  const std::set<uint64_t> numbers = VolumeNumbers();
  ASSERT_FALSE(numbers.empty());
  EXPECT_LT(numbers.size(), 2000u);
  EXPECT_EQ(*numbers.begin(), 100u);
  EXPECT_EQ(*numbers.rbegin(), 100 + numbers.size() - 1) << "a commit is missing in between";
}

TEST_F(RocksDbMetadataStoreDeathTest, ABatchIsAllOrNothingWhereverTheLogIsCut) {
  EXPECT_EXIT(
      {
        Reopen();
        MetadataBatch batch;
        batch.put_volumes.push_back(Volume());
        batch.put_objects.push_back(Object());
        batch.add_presence.push_back({kObjectNumber, {0, kMiB}, Presence::kDurable});
        batch.put_journal.push_back(Request(1));
        Commit(batch);
        kill(getpid(), SIGKILL);
      },
      testing::KilledBySignal(SIGKILL), "");
  const std::string whole = root_ + "/whole";
  fs::copy(directory_, whole, fs::copy_options::recursive);
  const std::string log = FileOf(".log");
  const uint64_t size = fs::file_size(log);
  for (uint64_t cut = 0; cut <= 300; cut += 30) {
    store_.reset();
    fs::remove_all(directory_);
    fs::copy(whole, directory_, fs::copy_options::recursive);
    fs::resize_file(log, size - std::min(cut, size));
    Reopen();
    const size_t there = VolumeNumbers().size();
    EXPECT_EQ(there, cut == 0 ? 1u : 0u);
    EXPECT_EQ(store_->LoadObject(kObjectNumber)->has_value(), there == 1) << cut;
    EXPECT_EQ(PresenceOf(Object()).present_bytes(), there * kMiB) << cut;
    EXPECT_EQ(store_->LoadJournal()->size(), there) << cut;
  }
}

// A limit on file size stands in for a full disk: both leave half a record in the log.
TEST_F(RocksDbMetadataStoreDeathTest,
       AFullDiskFailsCommitsUntilThereIsRoomAndLosesNoneThatSucceeded) {
  EXPECT_EXIT(
      {
        signal(SIGXFSZ, SIG_IGN);
        Reopen();
        LimitFileSize(20001);
        uint64_t next = 100;
        while (store_->Commit(VolumeBatch(next), Sync::kNo).ok()) ++next;
        // What can still be written differs: nothing, a new log, a part of a table file.
        bool is_still_full = true;
        for (const rlim_t limit : {0u, 100u, 3000u, 100u}) {
          LimitFileSize(limit);
          is_still_full = is_still_full && !store_->Heal().ok() &&
                          !store_->Commit(VolumeBatch(next), Sync::kNo).ok();
        }
        LimitFileSize(RLIM_INFINITY);
        EXPECT_TRUE(store_->Heal().ok());
        for (uint64_t i = 0; i < 20; ++i) Commit(VolumeBatch(next + i), Sync::kYes);
        if (is_still_full && !HasFatalFailure()) {
          std::ofstream(root_ + "/committed") << next + 20 - 100;
        }
        kill(getpid(), SIGKILL);
      },
      testing::KilledBySignal(SIGKILL), "");
  uint64_t committed = 0;
  std::ifstream(root_ + "/committed") >> committed;
  ASSERT_GT(committed, 100u);
  Reopen();
  const std::set<uint64_t> numbers = VolumeNumbers();
  EXPECT_EQ(numbers.size(), committed);
  EXPECT_EQ(*numbers.rbegin(), 100 + committed - 1);
}

TEST_F(RocksDbMetadataStoreTest, ANewerSchemaIsRefusedWithAReason) {
  Reopen();
  PutRaw(schema::VersionKey(), schema::EncodeVersion(schema::kVersion + 1));
  const Status status = OpenError();
  EXPECT_EQ(status.error(), EPROTO);
  EXPECT_EQ(status.message(), directory_ +
                                  " was written by a newer Holdfast (schema 4, this program knows "
                                  "up to 3): use that Holdfast, or another --cache-dir");
}

// The journal's record is as schema 1 wrote it: it goes on with FUSE request 42.
TEST_F(RocksDbMetadataStoreTest, StateOfThePreviousSchemaIsReadAndBecomesCurrent) {
  Reopen();
  PutObject(Object());
  const unsigned char request[] = {
      0,    0, 0, 2, 0, 0, 0, 0,    0,    0,    0,    0x11, 0,    0,    0,    0,   0, 0,
      0x10, 0, 0, 0, 0, 0, 0, 0,    0x20, 0,    0,    0,    0,    0,    0,    0,   0, 1,
      0,    0, 0, 0, 0, 0, 0, 0x2a, 0x06, 0x11, 0x94, 0x32, 0x08, 0x9f, 0xdb, 0x97};
  PutRaw(schema::JournalKey({5}),
         std::string(reinterpret_cast<const char*>(request), sizeof(request)));
  PutRaw(schema::VersionKey(), schema::EncodeVersion(1));
  Reopen();
  EXPECT_TRUE(store_->LoadObject(kObjectNumber)->has_value());
  const std::vector<JournalRecord> journal = *store_->LoadJournal();
  ASSERT_EQ(journal.size(), 1u);
  EXPECT_EQ(journal[0].object.value, 17u);
  EXPECT_EQ(journal[0].range, (ByteRange{4096, 8192}));
  EXPECT_EQ(journal[0].generation.value, 1u);
  EXPECT_NE(Dump().find("\nschema version=3\n"), std::string::npos);
}

TEST_F(RocksDbMetadataStoreTest, RemovedPresenceIsGoneOfBothKinds) {
  Reopen();
  PutObject(Object());
  MetadataBatch batch;
  batch.add_presence.push_back({kObjectNumber, {0, 40960}, Presence::kThisBoot});
  batch.add_presence.push_back({kObjectNumber, {0, 40960}, Presence::kDurable});
  ASSERT_TRUE(store_->Commit(batch, Sync::kNo).ok());
  MetadataBatch removal;
  removal.remove_presence.push_back({kObjectNumber, {8192, 16384}, Presence::kDurable});
  ASSERT_TRUE(store_->Commit(removal, Sync::kYes).ok());
  Reopen();
  const Result<PresenceMap> present = store_->LoadPresence(kObjectNumber, 40960);
  EXPECT_EQ(present->Gaps({0, 40960}), (std::vector<ByteRange>{{8192, 16384}}));
  MetadataBatch rest;
  rest.remove_presence.push_back({kObjectNumber, {0, 40960}, Presence::kDurable});
  ASSERT_TRUE(store_->Commit(rest, Sync::kYes).ok());
  EXPECT_EQ(store_->LoadPresence(kObjectNumber, 40960)->present_bytes(), 0u);
}

TEST_F(RocksDbMetadataStoreTest, ADamagedSchemaRecordIsWrittenAnew) {
  Reopen();
  PutObject(Object());
  PutRaw(schema::VersionKey(), "garbage");
  Reopen();
  EXPECT_TRUE(store_->LoadObject(kObjectNumber)->has_value());
  EXPECT_NE(Dump().find("\nschema version=3\n"), std::string::npos);
}

TEST_F(RocksDbMetadataStoreTest, ASecondOpeningInTheSameProcessIsBusy) {
  Reopen();
  const Status status = OpenError();
  EXPECT_EQ(status.error(), EBUSY);
  EXPECT_EQ(status.message(), directory_ +
                                  " is in use by another holdfastd: stop it, or use another "
                                  "--cache-dir");
}

TEST_F(RocksDbMetadataStoreTest, AStoreThatAnotherProcessHasOpenIsBusy) {
  Reopen();
  store_.reset();
  int pipe_fds[2];
  ASSERT_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
  UniqueFd reader(pipe_fds[0]);
  UniqueFd writer(pipe_fds[1]);
  const pid_t child = fork();
  if (child == 0) {  // RocksDB's threads are not here: take its lock as it would.
    const int fd = open((directory_ + "/LOCK").c_str(), O_RDWR | O_CLOEXEC);
    struct flock lock = {};
    lock.l_type = F_WRLCK;
    const char locked = fcntl(fd, F_SETLK, &lock) == 0 ? 'y' : 'n';
    (void)!write(writer.get(), &locked, 1);
    pause();
    _exit(0);
  }
  char locked = '?';
  EXPECT_EQ(read(reader.get(), &locked, 1), 1);
  EXPECT_EQ(locked, 'y');
  EXPECT_EQ(OpenError().error(), EBUSY) << OpenError().message();
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  Reopen();
}

TEST_F(RocksDbMetadataStoreTest, ADirectoryThatCannotBeWrittenToIsNamedWithTheCure) {
  std::ofstream(root_ + "/file") << "a file";
  directory_ = root_ + "/file/meta";
  EXPECT_EQ(OpenError().error(), ENOTDIR);
  EXPECT_EQ(OpenError().message(), "make directory " + directory_ +
                                       ": Not a directory: choose a --cache-dir that this user "
                                       "can write to");
  directory_ = root_ + "/file";
  EXPECT_EQ(OpenError().message(), "write to " + directory_ +
                                       ": Not a directory: choose a --cache-dir that this user "
                                       "can write to");
}

TEST_F(RocksDbMetadataStoreTest, ABootIdThatIsNoneIsRefused) {
  EXPECT_EQ(OpenRocksDbMetadataStore(directory_, "boot").status().error(), EINVAL);
  const Result<std::string> boot_id = ReadBootId();
  ASSERT_TRUE(boot_id.ok()) << boot_id.status().message();
  EXPECT_TRUE(OpenRocksDbMetadataStore(directory_, *boot_id).ok());
}

TEST_F(RocksDbMetadataStoreTest, ADatabaseWhoseFilesCannotBeReadIsRepairedAndNoNumberRecurs) {
  Reopen();
  const uint64_t first = *store_->Reserve(Counter::kObjectNumber, 1000);
  MetadataBatch batch;
  batch.put_volumes.push_back(Volume());
  Commit(batch);
  Reopen();  // The log becomes a table file.
  store_.reset();
  const std::string lost = FileOf(".sst");
  Reopen();
  const ObjectRecord object = Object(first + 900);
  batch.put_objects.push_back(object);
  batch.add_presence.push_back({object.number, {0, kMiB}, Presence::kDurable});
  Commit(batch);
  Reopen();
  store_.reset();
  Overwrite(lost, fs::file_size(lost) - 8, "no magic");
  for (const auto& entry : fs::directory_iterator(directory_)) {
    if (entry.path().filename().string().starts_with("MANIFEST")) {
      fs::resize_file(entry.path(), 5);
    }
  }
  Reopen();
  EXPECT_EQ(store_->LoadObject(object.number)->value().cookie, object.cookie);
  EXPECT_EQ(PresenceOf(object).present_bytes(), kMiB);
  EXPECT_GT(*store_->Reserve(Counter::kObjectNumber, 1), object.number.value);
}

TEST_F(RocksDbMetadataStoreTest, ALostCurrentIsNotTakenForANewDatabase) {
  Reopen();
  MetadataBatch batch;
  batch.put_volumes.push_back(Volume());
  batch.put_objects.push_back(Object());
  Commit(batch);
  store_.reset();
  fs::remove(directory_ + "/CURRENT");
  Reopen();
  EXPECT_EQ(store_->LoadObject(kObjectNumber)->value().cookie, "layer");
}

TEST_F(RocksDbMetadataStoreTest, AnObjectCounterBelowWhatIsInUseIsRaisedAtTheStart) {
  Reopen();
  AddPresence({5000}, {0, kMiB}, Presence::kDurable);
  PutRaw(schema::CounterKey(Counter::kObjectNumber),
         schema::EncodeCounter(Counter::kObjectNumber, 4000));
  Reopen();
  EXPECT_GT(*store_->Reserve(Counter::kObjectNumber, 1), 5000u);
}

TEST_F(RocksDbMetadataStoreTest, WhatCannotBeOpenedSaysWhatToDo) {
  fs::create_directories(directory_ + "/LOCK");
  const Status status = OpenError();
  EXPECT_EQ(status.message().find("open metadata in " + directory_), 0u) << status.message();
  EXPECT_NE(status.message().find("choose another --cache-dir"), std::string::npos);
}

// A directory in the place of its lock file, the first file that an open makes, stands for a disk
// that takes no writes.
TEST_F(RocksDbMetadataStoreTest, WhatCanOnlyBeReadIsServedAndKeptInMemoryUntilTheDiskTakesWrites) {
  Reopen();
  const uint64_t ids = *store_->Reserve(Counter::kObjectId, 64);
  PutObject(Object());
  MetadataBatch batch;
  batch.add_presence.push_back({kObjectNumber, {0, 8192}, Presence::kDurable});
  Commit(batch);
  store_.reset();
  fs::remove(directory_ + "/LOCK");
  fs::create_directory(directory_ + "/LOCK");
  for (int life = 0; life < 2; ++life) {
    Reopen();
    EXPECT_NE(store_->Heal().error(), 0);
    EXPECT_TRUE(store_->LoadObject(kObjectNumber)->has_value());
    EXPECT_EQ(store_->LoadPresence(kObjectNumber, 10000)->present_bytes(), 8192u);
    // A name for ever cannot be given; what is of one life can, and does not recur in the next.
    EXPECT_EQ(store_->Reserve(Counter::kObjectNumber, 1).status().error(), ENOSPC);
    EXPECT_GT(*store_->Reserve(Counter::kObjectId, 64), ids + 64);
    MetadataBatch more;
    more.add_presence.push_back({kObjectNumber, {8192, 12288}, Presence::kThisBoot});
    Commit(more);
    EXPECT_EQ(store_->LoadPresence(kObjectNumber, 10000)->present_bytes(), 10000u);
  }
  fs::remove(directory_ + "/LOCK");
  EXPECT_EQ(store_->Heal().message(), "success");
  EXPECT_EQ(store_->Reserve(Counter::kObjectNumber, 1).status().error(), 0);
  Reopen();
  EXPECT_EQ(store_->LoadPresence(kObjectNumber, 10000)->present_bytes(), 10000u);
}

TEST_F(RocksDbMetadataStoreTest, TheDumpOfARunningStoreIsThisText) {
  Reopen();
  ASSERT_EQ(*store_->Reserve(Counter::kObjectNumber, 64), 16u);
  ASSERT_EQ(*store_->Reserve(Counter::kMsgId, 64), 0u);
  MetadataBatch batch;
  batch.put_volumes.push_back(Volume());
  batch.put_objects.push_back(Object());
  batch.put_objects.push_back(Object(18, std::string("\x01\xff", 2)));
  batch.add_presence.push_back({kObjectNumber, {0, 8192}, Presence::kDurable});
  batch.add_presence.push_back({kObjectNumber, {16384, 20480}, Presence::kDurable});
  batch.add_presence.push_back({kObjectNumber, {4096, 8192}, Presence::kThisBoot});
  batch.put_journal.push_back(Request(9));
  Commit(batch);
  const std::string expected =
      R"(presence boot=01234567-89ab-cdef-0123-456789abcdef object=17 leaf=0 bytes=[4096, 8192)
counter object_number next=80
counter msg_id next=64
presence durable object=17 leaf=0 bytes=[0, 8192)[16384, 20480)
volume_key key="images" number=16
object_key volume=16 cookie="\x01\xff" number=18
object_key volume=16 cookie="layer" number=17
object number=17 volume=16 size=268435556 stale=0 cookie="layer" attr="etag"
object number=18 volume=16 size=268435556 stale=0 cookie="\x01\xff" attr="etag"
request msg=9 opcode=2 object=17 range=[0, 65536) generation=3
schema version=3
volume number=16 key="images"
)";
  EXPECT_EQ(Dump(), expected);
  Reopen();
  EXPECT_EQ(Dump(), expected);
}

TEST_F(RocksDbMetadataStoreTest, ADirectoryWithoutADatabaseCannotBeDumped) {
  std::ostringstream out;
  const Status status = DumpRocksDbMetadata(root_ + "/nowhere", out);
  EXPECT_EQ(status.error(), ENOENT);
  EXPECT_EQ(status.message(), "read metadata in " + root_ +
                                  "/nowhere: No such file or directory: is it the cache directory "
                                  "of a Holdfast?");
}

}  // namespace
}  // namespace cachecore
