#include <gtest/gtest.h>
#include <rocksdb/sst_file_reader.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "cachecore/store/metadata_schema.h"
#include "cachecore/store/rocksdb_database.h"
#include "tests/cachecore/store/rocksdb_store_fixture.h"

namespace cachecore {
namespace {

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

// Range tombstones in the tables, once all that was logged is in some.
uint64_t RangeTombstones(const std::string& directory) {
  Result<std::unique_ptr<RocksDbDatabase>> mended = RocksDbDatabase::Open(directory);
  EXPECT_TRUE(mended.ok());
  mended->reset();
  uint64_t count = 0;
  for (const auto& entry : fs::directory_iterator(directory)) {
    if (entry.path().extension() != ".sst") continue;
    rocksdb::SstFileReader reader{rocksdb::Options()};
    EXPECT_TRUE(reader.Open(entry.path()).ok());
    count += reader.GetTableProperties()->num_range_deletions;
  }
  return count;
}

TEST_F(RocksDbMetadataStoreTest, ForgettingWhatNeverHadPresenceWritesNoRangeTombstone) {
  Reopen();
  store_.reset();
  const uint64_t of_an_open = RangeTombstones(directory_);  // What other boots have left goes.
  Reopen();
  for (uint64_t i = 0; i < 100; ++i) {
    PutObject(Object(100 + i, std::to_string(i)));
    MetadataBatch batch;
    batch.erase_objects.push_back(Object(100 + i, std::to_string(i)));
    Commit(batch);
  }
  store_.reset();
  EXPECT_EQ(RangeTombstones(directory_), 2 * of_an_open);
  Reopen();
  PutObject(Object());
  AddPresence(kObjectNumber, {0, kMiB}, Presence::kDurable);
  MetadataBatch batch;
  batch.erase_objects.push_back(Object());
  Commit(batch);
  store_.reset();
  EXPECT_EQ(RangeTombstones(directory_), 3 * of_an_open + 1);
}

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
  EXPECT_NE(Dump().find("\nschema version=6\n"), std::string::npos);
}

// An object's record as schema 3 wrote it, with a digest and without facts.
TEST_F(RocksDbMetadataStoreTest, AnObjectOfSchema3IsReadAndGetsFacts) {
  Reopen();
  ObjectRecord object = Object();
  object.verity = Digest{1, 2, 3};
  PutObject(object);
  PutRaw(schema::VersionKey(), schema::EncodeVersion(3));
  Reopen();
  const Result<std::optional<ObjectRecord>> read = store_->LoadObject(kObjectNumber);
  ASSERT_TRUE(read.ok() && read->has_value());
  EXPECT_EQ((*read)->verity, object.verity);
  EXPECT_FALSE((*read)->facts);
  object.facts = ObjectFacts{1'700'000'000, 5, false};
  PutObject(object);
  Reopen();
  EXPECT_EQ((*store_->LoadObject(kObjectNumber))->facts, object.facts);
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

TEST_F(RocksDbMetadataStoreTest, SeveralRangesAreRemovedByOneBatch) {
  Reopen();
  PutObject(Object());
  MetadataBatch batch;
  batch.add_presence.push_back({kObjectNumber, {0, 40960}, Presence::kThisBoot});
  batch.add_presence.push_back({kObjectNumber, {0, 40960}, Presence::kDurable});
  ASSERT_TRUE(store_->Commit(batch, Sync::kNo).ok());
  MetadataBatch removal;
  removal.remove_presence.push_back({kObjectNumber, {0, 4096}, Presence::kDurable});
  removal.remove_presence.push_back({kObjectNumber, {8192, 16384}, Presence::kDurable});
  removal.remove_presence.push_back({kObjectNumber, {36864, 40960}, Presence::kDurable});
  ASSERT_TRUE(store_->Commit(removal, Sync::kYes).ok());
  Reopen();
  const Result<PresenceMap> present = store_->LoadPresence(kObjectNumber, 40960);
  EXPECT_EQ(present->Gaps({0, 40960}),
            (std::vector<ByteRange>{{0, 4096}, {8192, 16384}, {36864, 40960}}));
  MetadataBatch rest;
  rest.remove_presence.push_back({kObjectNumber, {0, 20480}, Presence::kDurable});
  rest.remove_presence.push_back({kObjectNumber, {20480, 40960}, Presence::kDurable});
  ASSERT_TRUE(store_->Commit(rest, Sync::kYes).ok());
  EXPECT_EQ(store_->LoadPresence(kObjectNumber, 40960)->present_bytes(), 0u);
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
schema version=6
volume number=16 key="images"
)";
  EXPECT_EQ(Dump(), expected);
  Reopen();
  EXPECT_EQ(Dump(), expected);
}

TEST_F(RocksDbMetadataStoreTest, UsesAreKeptOfAnObjectAndGoWithIt) {
  Reopen();
  PutObject(Object());
  MetadataBatch batch;
  batch.put_uses.push_back({kObjectNumber, 1, {7, 8}});
  batch.put_uses.push_back({{4711}, 0, {9}});  // Of no object.
  Commit(batch);
  Reopen();
  const auto uses = store_->LoadUses(kObjectNumber);
  ASSERT_EQ(uses.size(), 1u);
  EXPECT_EQ(uses[0].leaf, 1u);
  EXPECT_EQ(uses[0].seconds[1], 8u);
  EXPECT_TRUE(store_->LoadUses({4711}).empty());
  MetadataBatch erase;
  erase.erase_objects.push_back(Object());
  Commit(erase);
  EXPECT_TRUE(store_->LoadUses(kObjectNumber).empty());
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
