#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "cachecore/base/unique_fd.h"
#include "cachecore/store/boot_id.h"
#include "cachecore/store/metadata_schema.h"
#include "tests/cachecore/store/rocksdb_store_fixture.h"

namespace cachecore {
namespace {

TEST_F(RocksDbMetadataStoreTest, ADamagedObjectIsQuarantinedAndTheRestIsServed) {
  Reopen();
  PutObject(Object());
  PutObject(Object(18, "neighbour"));
  AddPresence(kObjectNumber, {0, kMiB}, Presence::kDurable);
  PutRaw(schema::ObjectKey(kObjectNumber), "garbage");
  Reopen();
  EXPECT_EQ(store_->LoadObject(kObjectNumber).status().error(), EBADMSG);
  ASSERT_TRUE(store_->QuarantineObject(kObjectNumber, kVolumeNumber, "layer", KeepData).ok());
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
  ASSERT_TRUE(store_->QuarantineObject(kObjectNumber, {}, "", KeepData).ok());
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
  ASSERT_TRUE(store_->QuarantineObject({}, kVolumeNumber, "layer", KeepData).ok());
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
  ASSERT_TRUE(store_->QuarantineObject(kObjectNumber, kVolumeNumber, "layer", KeepData).ok());
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

TEST_F(RocksDbMetadataStoreTest, ABadBlockOnDiskLosesItsRecordsAndNotTheStore) {
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
  MetadataBatch uses;  // That of an object which cannot be read is left out.
  for (const uint64_t i : {bad.front(), uint64_t{0}}) uses.put_uses.push_back({{100 + i}, 0, {7}});
  Commit(uses);
  EXPECT_EQ(store_->LoadUses({100}).size(), 1u);
  const auto visit_all = [](const ObjectRecord&) { return true; };
  EXPECT_EQ(store_->ScanObjects(kVolumeNumber, visit_all).error(), EBADMSG);
  EXPECT_LT(bad.size(), kObjects / 4);
  for (const uint64_t i : bad) {
    ASSERT_TRUE(
        store_->QuarantineObject({100 + i}, kVolumeNumber, std::to_string(i), KeepData).ok());
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

TEST_F(RocksDbMetadataStoreDeathTest, ATornLogTailLosesTheLastCommitOnly) {
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
                                  " was written by a newer Holdfast (schema 7, this program knows "
                                  "up to 6): use that Holdfast, or another --cache-dir");
}

// The journal's record is as schema 1 wrote it: it goes on with FUSE request 42.
TEST_F(RocksDbMetadataStoreTest, ADamagedSchemaRecordIsWrittenAgain) {
  Reopen();
  PutObject(Object());
  PutRaw(schema::VersionKey(), "garbage");
  Reopen();
  EXPECT_TRUE(store_->LoadObject(kObjectNumber)->has_value());
  EXPECT_NE(Dump().find("\nschema version=6\n"), std::string::npos);
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
  const Result<std::string> boot_id = ReadBootId(root_);
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
    // The next life would find it again, so it is not removed for this one.
    MetadataBatch less;
    less.remove_presence.push_back({kObjectNumber, {0, 4096}, Presence::kDurable});
    EXPECT_EQ(store_->Commit(less, Sync::kYes).error(), EROFS);
    EXPECT_EQ(store_->LoadPresence(kObjectNumber, 10000)->present_bytes(), 10000u);
  }
  fs::remove(directory_ + "/LOCK");
  EXPECT_EQ(store_->Heal().message(), "success");
  EXPECT_EQ(store_->Reserve(Counter::kObjectNumber, 1).status().error(), 0);
  Reopen();
  EXPECT_EQ(store_->LoadPresence(kObjectNumber, 10000)->present_bytes(), 10000u);
}

}  // namespace
}  // namespace cachecore
