// Stores that are broken in one way each, and what VerifyCache says of them.

#include "cachecore/offline/verify.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cachecore/protocol/wire.h"
#include "cachecore/store/data_store.h"
#include "cachecore/store/metadata_schema.h"
#include "cachecore/store/rocksdb_database.h"
#include "cachecore/store/rocksdb_metadata_store.h"

namespace cachecore {
namespace {

namespace fs = std::filesystem;

constexpr char kBoot[] = "01234567-89ab-cdef-0123-456789abcdef";
constexpr char kNextBoot[] = "fedcba98-7654-3210-fedc-ba9876543210";
constexpr uint64_t kSize = 10 * kBlockSize - 100;
constexpr ObjectNumber kVolume{16};
constexpr ObjectNumber kObject{17};

// One volume, one object with its first two blocks durable and the third of this boot, one READ.
class VerifyTest : public testing::Test {
 protected:
  VerifyTest() {
    std::string pattern = testing::TempDir() + "holdfast_verify_XXXXXX";
    directory_ = mkdtemp(pattern.data());
    auto store = OpenRocksDbMetadataStore(directory_ + "/db", kBoot);
    EXPECT_TRUE(store.ok()) << store.status().message();
    for (const Counter counter : {Counter::kObjectNumber, Counter::kMsgId, Counter::kGeneration}) {
      EXPECT_TRUE((*store)->Reserve(counter, 8).ok());
    }
    MetadataBatch batch;
    batch.put_volumes.push_back({kVolume, "images"});
    batch.put_objects.push_back(Record());
    batch.add_presence.push_back({kObject, {0, 2 * kBlockSize}, Presence::kDurable});
    batch.add_presence.push_back({kObject, {0, 3 * kBlockSize}, Presence::kThisBoot});
    batch.put_journal.push_back(Request());
    EXPECT_TRUE((*store)->Commit(batch, Sync::kYes).ok());
    auto data = DataStore::Open(directory_ + "/data");
    EXPECT_TRUE(data.ok());
    EXPECT_TRUE(data->Create(kObject, kSize).ok());
  }
  ~VerifyTest() override { fs::remove_all(directory_); }

  static ObjectRecord Record() {
    return {kObject, kVolume, "layer", kSize, /*stale=*/false, "etag"};
  }
  static JournalRecord Request() {
    JournalRecord request;
    request.msg_id = {5};
    request.opcode = static_cast<uint32_t>(wire::Opcode::kRead);
    request.object = kObject;
    request.range = {0, 100};
    request.generation = {1};
    return request;
  }
  std::string DataFile(ObjectNumber number = kObject) const {
    return DataStore::PathIn(directory_ + "/data", number);
  }

  void Change(const std::function<void(rocksdb::WriteBatch*)>& change) {
    const auto db = RocksDbDatabase::Open(directory_ + "/db");
    ASSERT_TRUE(db.ok()) << db.status().message();
    rocksdb::WriteBatch batch;
    change(&batch);
    ASSERT_TRUE((*db)->Write(&batch, Sync::kYes).ok());
  }
  void Put(const std::string& key, const std::string& value) {
    Change([&](rocksdb::WriteBatch* batch) { batch->Put(key, value); });
  }
  void Delete(const std::string& key) {
    Change([&](rocksdb::WriteBatch* batch) { batch->Delete(key); });
  }
  static std::string Run(uint32_t begin, uint32_t end) {
    return PresenceLeaf::EncodeRun(begin, end);
  }

  VerifyReport Verify() {
    options_.cache_dir = directory_;
    Result<VerifyReport> report = VerifyCache(options_);
    EXPECT_TRUE(report.ok()) << report.status().message();
    return report.ok() ? std::move(report).value() : VerifyReport();
  }
  static std::string Lines(const std::vector<Finding>& findings) {
    std::string text;
    for (const Finding& finding : findings) text += finding.subject + ": " + finding.what + "\n";
    return text;
  }
  std::string Faults() { return Lines(Verify().faults); }
  std::string Notes() { return Lines(Verify().notes); }

  std::string directory_;
  VerifyOptions options_{.cache_dir = "", .boot_id = kBoot, .as_new_boot = false, .contents = {}};
};

TEST_F(VerifyTest, AWholeStoreHasNoFindings) {
  const VerifyReport report = Verify();
  EXPECT_EQ(Lines(report.faults) + Lines(report.notes), "");
  EXPECT_EQ(report.objects, 1u);
  EXPECT_EQ(report.present_bytes, 3 * kBlockSize);
  EXPECT_EQ(report.durable_bytes, 2 * kBlockSize);
}

TEST_F(VerifyTest, AsOnANewBootOnlyWhatIsDurableIsPresent) {
  options_.as_new_boot = true;
  EXPECT_EQ(Verify().present_bytes, 2 * kBlockSize);
  options_.as_new_boot = false;
  options_.boot_id = kNextBoot;
  EXPECT_EQ(Verify().present_bytes, 2 * kBlockSize);
}

TEST_F(VerifyTest, NothingIsWritten) {
  const auto state = [this] {
    std::vector<std::string> names;
    for (const auto& entry : fs::recursive_directory_iterator(directory_)) {
      struct stat info;
      EXPECT_EQ(lstat(entry.path().c_str(), &info), 0);
      names.push_back(entry.path().string() + " " + std::to_string(info.st_size) + " " +
                      std::to_string(info.st_mtim.tv_nsec));
    }
    std::sort(names.begin(), names.end());
    return names;
  };
  const std::vector<std::string> before = state();
  Verify();
  EXPECT_EQ(state(), before);
}

TEST_F(VerifyTest, ItRunsBesideAProcessThatHasTheStoreOpen) {
  const auto store = OpenRocksDbMetadataStore(directory_ + "/db", kBoot);
  ASSERT_TRUE(store.ok());
  EXPECT_EQ(Faults(), "");
}

TEST_F(VerifyTest, ADamagedRecordIsAFault) {
  Put(schema::CounterKey(Counter::kObjectId), "garbage");
  EXPECT_EQ(Faults(), "record \"C\\x02\": counter record is damaged: shorter than its checksum\n");
}

TEST_F(VerifyTest, ARecordOfNoKindIsAFault) {
  Put("x", "");
  EXPECT_EQ(Faults(), "record \"x\": no record kind has this key\n");
}

TEST_F(VerifyTest, AMissingSchemaIsAFault) {
  Delete(schema::VersionKey());
  EXPECT_EQ(Faults(), "schema: its record is missing\n");
}

TEST_F(VerifyTest, AnEmptyDatabaseIsANote) {
  fs::remove_all(directory_ + "/db");
  fs::remove_all(directory_ + "/data");
  ASSERT_TRUE(RocksDbDatabase::Open(directory_ + "/db").ok());
  EXPECT_EQ(Faults(), "");
  EXPECT_EQ(Notes(), "database: is empty: a crash while it was made leaves that\n");
}

TEST_F(VerifyTest, AVolumeWithoutItsKeyRecordIsAFault) {
  Delete(schema::VolumeIndexKey("images"));
  EXPECT_EQ(Faults(), "volume 16: no key record names it\n");
}

TEST_F(VerifyTest, AKeyRecordOfNoVolumeIsAFault) {
  Put(schema::VolumeIndexKey("others"), schema::EncodeVolumeIndex({{18}, "others"}));
  EXPECT_EQ(Faults(), "volume key \"others\": names volume 18, which has no record\n");
}

TEST_F(VerifyTest, AKeyRecordOfAnotherVolumeIsAFault) {
  Put(schema::VolumeIndexKey("others"), schema::EncodeVolumeIndex({kVolume, "others"}));
  EXPECT_EQ(Faults(), "volume key \"others\": names volume 16, whose key is \"images\"\n");
}

TEST_F(VerifyTest, AnIllegalVolumeKeyIsAFault) {
  const VolumeRecord volume{{18}, "a/b"};
  Put(schema::VolumeKey(volume.number), schema::EncodeVolume(volume));
  Put(schema::VolumeIndexKey(volume.key), schema::EncodeVolumeIndex(volume));
  EXPECT_EQ(Faults(), "volume 18: \"a/b\" is no legal volume key\n");
}

TEST_F(VerifyTest, AnIllegalCookieIsAFault) {
  ObjectRecord object = Record();
  object.number = {18};
  object.cookie = std::string(253, 'x');
  Put(schema::ObjectKey(object.number), schema::EncodeObject(object));
  Put(schema::ObjectIndexKey(kVolume, object.cookie), schema::EncodeObjectIndex(object));
  fs::create_directories(fs::path(DataFile(object.number)).parent_path());
  std::ofstream(DataFile(object.number));
  fs::resize_file(DataFile(object.number), kSize);
  EXPECT_EQ(Faults(), "object 18 (images/" + object.cookie + "): \"" + object.cookie +
                          "\" is no legal cookie\n");
}

TEST_F(VerifyTest, AnObjectWithoutItsVolumeIsAFault) {
  Delete(schema::VolumeKey(kVolume));
  Delete(schema::VolumeIndexKey("images"));
  EXPECT_EQ(Faults(), "object 17 (volume 16/layer): its volume 16 has no record\n");
}

TEST_F(VerifyTest, AnObjectWithoutItsKeyRecordIsAFault) {
  Delete(schema::ObjectIndexKey(kVolume, "layer"));
  EXPECT_EQ(Faults(), "object 17 (images/layer): no key record names it\n");
}

TEST_F(VerifyTest, AKeyRecordOfNoObjectIsAFault) {
  ObjectRecord gone = Record();
  gone.number = {18};
  gone.cookie = "gone";
  Put(schema::ObjectIndexKey(kVolume, "gone"), schema::EncodeObjectIndex(gone));
  EXPECT_EQ(Faults(), "object key \"gone\" of volume 16: names object 18, which has no record\n");
}

TEST_F(VerifyTest, AKeyRecordOfAnotherObjectIsAFault) {
  ObjectRecord other = Record();
  other.cookie = "other";
  Put(schema::ObjectIndexKey(kVolume, "other"), schema::EncodeObjectIndex(other));
  EXPECT_EQ(Faults(), "object key \"other\" of volume 16: names object 17 (images/layer)\n");
}

TEST_F(VerifyTest, AMissingDataFileIsAFault) {
  fs::remove(DataFile());
  EXPECT_EQ(Faults(),
            "object 17 (images/layer): its file " + DataFile() + ": No such file or directory\n");
}

TEST_F(VerifyTest, ADataFileOfAnotherSizeIsAFault) {
  fs::resize_file(DataFile(), 1);
  EXPECT_EQ(Faults(), "object 17 (images/layer): " + DataFile() + " is of 1 bytes, the object of " +
                          std::to_string(kSize) + "\n");
}

TEST_F(VerifyTest, ADirectoryForADataFileIsAFault) {
  fs::remove(DataFile());
  fs::create_directory(DataFile());
  EXPECT_EQ(Faults(), "object 17 (images/layer): " + DataFile() + " is no regular file\n");
}

TEST_F(VerifyTest, PresencePastTheObjectsEndIsAFaultInEitherClass) {
  Put(schema::PresenceKey(schema::DurablePresencePrefix(kObject), 0), Run(9, 11));
  EXPECT_NE(Faults().find("object 17 (images/layer): durable presence, leaf 0: "),
            std::string::npos);
  Put(schema::PresenceKey(schema::DurablePresencePrefix(kObject), 0), Run(0, 2));
  const std::string boot = schema::BootPresencePrefix(*schema::ParseBootId(kBoot), kObject);
  Put(schema::PresenceKey(boot, 1), Run(0, 1));
  EXPECT_NE(Faults().find("object 17 (images/layer): this boot's presence, leaf 1: "),
            std::string::npos);
}

TEST_F(VerifyTest, PresenceThatDoesNotDecodeIsAFault) {
  Put(schema::PresenceKey(schema::DurablePresencePrefix(kObject), 0), "\xff");
  EXPECT_NE(Faults().find("object 17 (images/layer): durable presence, leaf 0: "),
            std::string::npos);
}

TEST_F(VerifyTest, PresenceOfNoObjectIsAFault) {
  Put(schema::PresenceKey(schema::DurablePresencePrefix({99}), 0), Run(0, 1));
  EXPECT_EQ(Faults(), "presence of object 99: the object has no record\n");
}

TEST_F(VerifyTest, APresenceKeyOfTheWrongLengthIsAFault) {
  Put("D123", Run(0, 1));
  EXPECT_EQ(Faults(),
            "record \"D123\": presence record is damaged: its key has the wrong length\n");
}

TEST_F(VerifyTest, ARequestOfNoObjectIsAFault) {
  JournalRecord request = Request();
  request.object = {20};
  Put(schema::JournalKey(request.msg_id), schema::EncodeJournal(request));
  EXPECT_EQ(Faults(), "request 5: its object 20 has no record\n");
  request.opcode = static_cast<uint32_t>(wire::Opcode::kOpen);
  Put(schema::JournalKey(request.msg_id), schema::EncodeJournal(request));
  EXPECT_EQ(Faults(), "");  // Its answer makes the object.
  request.opcode = 77;
  Put(schema::JournalKey(request.msg_id), schema::EncodeJournal(request));
  EXPECT_EQ(Faults(), "request 5: its opcode is 77\n");
}

TEST_F(VerifyTest, ARequestOutsideItsObjectIsAFault) {
  JournalRecord request = Request();
  request.range = {0, kSize + 1};
  Put(schema::JournalKey(request.msg_id), schema::EncodeJournal(request));
  EXPECT_NE(Faults().find("request 5: its range [0, 40861) is not inside object 17"),
            std::string::npos);
}

TEST_F(VerifyTest, NumbersAtOrAboveTheirCountersAreFaults) {
  Put(schema::CounterKey(Counter::kObjectNumber),
      schema::EncodeCounter(Counter::kObjectNumber, 17));
  Put(schema::CounterKey(Counter::kMsgId), schema::EncodeCounter(Counter::kMsgId, 5));
  Delete(schema::CounterKey(Counter::kGeneration));
  EXPECT_EQ(Faults(),
            "counter generation: is missing, and request 5 has 1\n"
            "counter msg_id: goes on at 5, and request 5 has 5\n"
            "counter object_number: goes on at 17, and object 17 (images/layer) has 17\n");
}

TEST_F(VerifyTest, WhatACrashMayLeaveIsANote) {
  std::ofstream(directory_ + "/data/11/bogus");
  fs::create_directory(directory_ + "/data/12");
  std::ofstream(DataFile({18}));
  Put(schema::QuarantineKey({}, schema::JournalKey({7})), "what was there");
  const VerifyReport report = Verify();
  EXPECT_EQ(Lines(report.faults), "");
  EXPECT_EQ(Lines(report.notes),
            directory_ + "/data/11/bogus: does not belong to the cache\n" + DataFile({18}) +
                ": is empty and has no object: a crash between making it and recording its object "
                "leaves that\n"
                "record \"R\\x00\\x00\\x00\\x07\": was damaged, and is in quarantine\n");
  fs::resize_file(DataFile({18}), 5);
  EXPECT_NE(Notes().find("has no object: it was dropped"), std::string::npos);
}

TEST_F(VerifyTest, ContentIsComparedWhereItIsPresentAndTheFirstWrongBlockNamed) {
  const std::string right = directory_ + "/right";
  std::ofstream(right).flush();
  fs::resize_file(right, kSize);
  options_.contents = {{"images", "layer", right}};
  VerifyReport report = Verify();
  EXPECT_EQ(Lines(report.faults), "");
  EXPECT_EQ(report.compared_bytes, 3 * kBlockSize);

  std::fstream file(DataFile(), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(5 * kBlockSize) << "x";  // Absent: may be anything.
  file.flush();
  EXPECT_EQ(Faults(), "");
  file.seekp(2 * kBlockSize + 7) << "x";  // Of this boot only.
  file.flush();
  EXPECT_EQ(Faults(), "object 17 (images/layer): present bytes differ from " + right +
                          ", first in the block at 8192; blocks that differ: 1\n");
  options_.as_new_boot = true;
  EXPECT_EQ(Faults(), "");
  file.seekp(kBlockSize) << "x";
  file.flush();
  EXPECT_NE(Faults().find("first in the block at 4096; blocks that differ: 1"), std::string::npos);
}

TEST_F(VerifyTest, ContentThatCannotBeComparedIsAFault) {
  options_.contents = {{"images", "nothing", "/dev/null"}, {"images", "layer", "/dev/null"}};
  EXPECT_EQ(Faults(),
            "images/nothing: there is no such object to compare\n"
            "object 17 (images/layer): /dev/null is of 0 bytes, the object of 40860\n");
}

TEST_F(VerifyTest, WhatIsNoCacheIsAnError) {
  options_.cache_dir = directory_ + "/nowhere";
  EXPECT_EQ(VerifyCache(options_).status().error(), ENOENT);
  options_.cache_dir = directory_;
  options_.boot_id = "none";
  EXPECT_EQ(VerifyCache(options_).status().error(), EINVAL);
}

}  // namespace
}  // namespace cachecore
