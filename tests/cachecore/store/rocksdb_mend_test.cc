// What a repair may leave, and what MendRecords makes of it.

#include "cachecore/store/rocksdb_mend.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <sstream>
#include <string>

#include "cachecore/store/metadata_schema.h"
#include "cachecore/store/rocksdb_metadata_store.h"
#include "cachecore/values/presence_leaf.h"

namespace cachecore {
namespace {

constexpr ObjectNumber kVolume{16};
constexpr char kBoot[] = "01234567-89ab-cdef-0123-456789abcdef";

ObjectRecord Object(uint64_t number, const std::string& cookie) {
  return {{number}, kVolume, cookie, 1 << 20, /*stale=*/false, "etag"};
}

class RocksDbMendTest : public testing::Test {
 protected:
  RocksDbMendTest() {
    std::string pattern = testing::TempDir() + "holdfast_mend_XXXXXX";
    directory_ = mkdtemp(pattern.data());
    db_ = std::move(RocksDbDatabase::Open(directory_ + "/db")).value();
    Put(schema::VolumeKey(kVolume), schema::EncodeVolume({kVolume, "images"}));
  }
  ~RocksDbMendTest() override {
    db_.reset();
    std::filesystem::remove_all(directory_);
  }

  void Put(const std::string& key, const std::string& value) {
    rocksdb::WriteBatch batch;
    batch.Put(key, value);
    EXPECT_TRUE(db_->Write(&batch, Sync::kYes).ok());
  }
  void PutObject(const ObjectRecord& object) {
    Put(schema::ObjectKey(object.number), schema::EncodeObject(object));
  }
  void PutIndex(const ObjectRecord& object) {
    Put(schema::ObjectIndexKey(object.volume, object.cookie), schema::EncodeObjectIndex(object));
  }
  void PutPresence(uint64_t object) {
    Put(schema::PresenceKey(schema::DurablePresencePrefix({object}), 0),
        PresenceLeaf::EncodeRun(0, 1));
  }
  uint64_t Next(Counter counter) {
    return *schema::DecodeCounter(counter, Get(schema::CounterKey(counter)));
  }
  std::string Get(const std::string& key) { return (*db_->Get(key)).value_or("none"); }
  // Everything but the counters, as `holdfast dump` shows it.
  std::string Mended() {
    const Status mended = MendRecords(db_.get());
    EXPECT_TRUE(mended.ok()) << mended.message();
    std::string text;
    EXPECT_TRUE(db_->Scan("",
                          [&](std::string_view key, std::string_view value) {
                            if (key[0] != schema::kCounter)
                              text += schema::Describe(key, value) + "\n";
                            return true;
                          })
                    .ok());
    return text;
  }

  const std::string volume_lines_ = "volume_key key=\"images\" number=16\n",
                    volume_line_ = "volume number=16 key=\"images\"\n";
  std::string directory_;
  std::unique_ptr<RocksDbDatabase> db_;
};

TEST_F(RocksDbMendTest, AnObjectGetsItsKeyRecordAgain) {
  PutObject(Object(17, "a"));
  EXPECT_EQ(Mended(), volume_lines_ + "object_key volume=16 cookie=\"a\" number=17\n" +
                          "object number=17 volume=16 size=1048576 stale=0 cookie=\"a\" "
                          "attr=\"etag\"\n" +
                          volume_line_);
}

TEST_F(RocksDbMendTest, AVolumeIsRestoredFromItsKeyRecord) {
  Put(schema::VolumeIndexKey("others"), schema::EncodeVolumeIndex({{18}, "others"}));
  EXPECT_EQ(Mended(), volume_lines_ + "volume_key key=\"others\" number=18\n" + volume_line_ +
                          "volume number=18 key=\"others\"\n");
}

TEST_F(RocksDbMendTest, OfTwoObjectsWithOneNameTheNewerStays) {
  PutObject(Object(17, "a"));
  PutPresence(17);
  PutIndex(Object(17, "a"));
  PutObject(Object(30, "a"));
  EXPECT_EQ(Mended(), volume_lines_ + "object_key volume=16 cookie=\"a\" number=30\n" +
                          "object number=30 volume=16 size=1048576 stale=0 cookie=\"a\" "
                          "attr=\"etag\"\n" +
                          volume_line_);
}

TEST_F(RocksDbMendTest, RecordsWithoutAnObjectAreRemoved) {
  PutIndex(Object(17, "gone"));
  PutPresence(18);
  const std::string boot = schema::BootPresencePrefix(*schema::ParseBootId(kBoot), {19});
  Put(schema::PresenceKey(boot, 0), PresenceLeaf::EncodeRun(0, 1));
  ObjectRecord lost = Object(20, "in a volume that is gone");
  lost.volume = {15};
  PutObject(lost);
  PutIndex(lost);
  JournalRecord request;
  request.msg_id = {7};
  request.object = {21};
  Put(schema::JournalKey(request.msg_id), schema::EncodeJournal(request));
  EXPECT_EQ(Mended(), volume_lines_ + volume_line_);
}

TEST_F(RocksDbMendTest, NoCounterRepeatsANumberOfARecord) {
  PutPresence(5000);
  JournalRecord request;
  request.msg_id = {70};
  request.generation = {80};
  request.object = {21};
  Put(schema::JournalKey(request.msg_id), schema::EncodeJournal(request));
  Put(schema::CounterKey(Counter::kObjectNumber),
      schema::EncodeCounter(Counter::kObjectNumber, 99));
  Put(schema::CounterKey(Counter::kObjectId), schema::EncodeCounter(Counter::kObjectId, 1000));
  Put(schema::CounterKey(Counter::kMsgId), "garbage");
  Mended();
  EXPECT_GT(Next(Counter::kObjectNumber), 5000u);
  EXPECT_GT(Next(Counter::kMsgId), 70u);
  EXPECT_GT(Next(Counter::kGeneration), 80u);
  EXPECT_GT(Next(Counter::kObjectId), 1000u);
}

}  // namespace
}  // namespace cachecore
