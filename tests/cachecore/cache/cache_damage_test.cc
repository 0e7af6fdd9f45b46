// Cache: what is lost, damaged or refused, and what that leaves behind.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/fault_point.h"
#include "cachecore/store/metadata_schema.h"
#include "cachecore/store/rocksdb_database.h"
#include "tests/cachecore/cache/cache_rig.h"
#include "tests/cachecore/store/forwarding_store.h"

namespace cachecore {
namespace {

constexpr uint64_t kMiB = 1 << 20;

std::string DataFileOf(const CacheRig& rig, ObjectNumber number) {
  return DataStore::PathIn(rig.directory + "/data", number);
}

TEST(CacheDamageTest, ADamagedIndexRecordLeavesNoDataFileBehind) {
  CacheRig rig;
  const ObjectInfo object = *rig.Acquire(kMiB);
  ASSERT_TRUE(std::filesystem::exists(DataFileOf(rig, object.number)));
  rig.cache.reset();
  {
    auto database = RocksDbDatabase::Open(rig.directory + "/db").value();
    rocksdb::WriteBatch batch;
    batch.Put(schema::ObjectIndexKey(object.volume, "object"), "garbage");
    ASSERT_TRUE(database->Write(&batch, Sync::kYes).ok());
  }
  rig.Reopen();
  const Result<ObjectInfo> again = rig.Acquire(kMiB);
  ASSERT_TRUE(again.ok()) << again.status().message();
  EXPECT_NE(again->number, object.number);
  EXPECT_FALSE(std::filesystem::exists(DataFileOf(rig, object.number)));
}

// Dies as it returns from a quarantine.
class DeadlyQuarantineStore : public ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  Status QuarantineObject(ObjectNumber number, ObjectNumber volume, const std::string& cookie,
                          const std::function<Status(ObjectNumber)>& remove_data) override {
    ForwardingStore::QuarantineObject(number, volume, cookie, remove_data)
        .IgnoreError("it dies as it returns");
    return Status(EIO, "dead");
  }
};

TEST(CacheDamageTest, ADeathInAQuarantineLeavesNoDataFileBehind) {
  CacheRig rig;
  const ObjectInfo object = *rig.Acquire(kMiB);
  rig.cache.reset();
  {
    auto database = RocksDbDatabase::Open(rig.directory + "/db").value();
    rocksdb::WriteBatch batch;
    batch.Put(schema::ObjectKey(object.number), "garbage");
    ASSERT_TRUE(database->Write(&batch, Sync::kYes).ok());
  }
  rig.wrap_store = [](std::unique_ptr<MetadataStore> store) {
    return std::make_unique<DeadlyQuarantineStore>(std::move(store));
  };
  rig.Reopen();
  EXPECT_FALSE(rig.cache->Stat(object.number).ok());
  EXPECT_FALSE(std::filesystem::exists(DataFileOf(rig, object.number)));
}

// As where the file system of the data alone is not mounted.
TEST(CacheDamageTest, WithoutItsDataDirectoryTheCacheIsNotOpenedAndForgetsNothing) {
  CacheRig rig;
  const ObjectNumber number = rig.Acquire(kMiB)->number;
  rig.Execute(wire::FilledCommand{rig.live, {0, kMiB}});
  const std::string data = rig.directory + "/data", elsewhere = rig.directory + "/elsewhere";
  rig.cache.reset();
  std::filesystem::rename(data, elsewhere);
  const auto open = [&] {
    return Cache::Open({}, Clock::Monotonic(),
                       OpenRocksDbMetadataStore(rig.directory + "/db", rig.boot_id).value(),
                       DataStore::Open(data).value(), [] {})
        .status();
  };
  for (int i = 0; i < 2; ++i) {
    const Status refused = open();
    EXPECT_EQ(refused.error(), ENOENT);
    EXPECT_NE(refused.message().find(data + " has nothing of the objects"), std::string::npos)
        << refused.message();
    std::filesystem::create_directory(data + "/lost+found");
  }
  std::filesystem::remove_all(data);
  std::filesystem::rename(elsewhere, data);
  rig.Reopen();
  EXPECT_TRUE(rig.IsPresent(number, {0, kMiB}));
  // One of a version that made no mark.
  std::filesystem::remove(data + "/" + DataStore::kMark);
  rig.Reopen();
  EXPECT_TRUE(rig.IsPresent(number, {0, kMiB}));
  // What is lost can be given up.
  rig.cache.reset();
  std::filesystem::remove_all(data);
  std::filesystem::create_directory(data);
  std::ofstream(data + "/" + DataStore::kMark).close();
  rig.Open();
  EXPECT_FALSE(rig.IsPresent(number, {0, 4096}));
  EXPECT_EQ(rig.Acquire(kMiB)->number, number);
}

// The directory is held open.
TEST(CacheDamageTest, ADataDirectoryThatIsReplacedUnderALifeGoesOnForIt) {
  CacheOptions options;
  options.max_objects = 1;
  CacheRig rig(options);
  const ObjectNumber number = rig.Acquire(kMiB)->number;
  rig.Execute(wire::FilledCommand{rig.live, {0, kMiB}});
  rig.cache->Sync();  // It leaves memory, as it is idle.
  std::filesystem::rename(rig.directory + "/data", rig.directory + "/elsewhere");
  std::filesystem::create_directory(rig.directory + "/data");
  EXPECT_TRUE(rig.IsPresent(number, {0, kMiB}));
}

TEST(CacheDamageTest, LostBytesAreCountedAndNamedOnce) {
  CacheRig rig;
  const ObjectInfo object = *rig.Acquire(kMiB);
  rig.Execute(wire::FilledCommand{rig.live, {0, 65536}});
  const std::string path = DataFileOf(rig, object.number);
  std::filesystem::resize_file(path, 8192);
  const Result<std::optional<FileSlice>> slice = rig.cache->TryRead(object.number, {0, 16384});
  ASSERT_TRUE(slice.ok() && slice->has_value());
  testing::internal::CaptureStderr();
  rig.cache->NoteUnreadable(object.number, **slice);
  rig.cache->NoteUnreadable(object.number, **slice);
  const std::string log = testing::internal::GetCapturedStderr();
  const std::string what = "bytes [8192, 16384) of " + path + ": the file ends before them";
  EXPECT_EQ(rig.cache->DescribeObjects().at(0).last_error, what);
  const std::string line = "object volume/object: EIO to reads of what its disk has lost: " + what;
  const size_t at = log.find(line);
  EXPECT_NE(at, std::string::npos) << log;
  EXPECT_EQ(log.find("disk has lost", at + line.size()), std::string::npos) << log;
  EXPECT_EQ(rig.cache->counters().reads_failed, 2u);
}

TEST(CacheDamageTest, TheErrnoOfADiskIsNamed) {
  CacheRig rig;
  const ObjectInfo object = *rig.Acquire(kMiB);
  // Reads of its first bytes are EIO.
  FileSlice slice;
  slice.file = std::make_shared<const UniqueFd>(open("/proc/self/mem", O_RDONLY | O_CLOEXEC));
  slice.range = {0, 4096};
  rig.cache->NoteUnreadable(object.number, slice);
  EXPECT_EQ(rig.cache->DescribeObjects().at(0).last_error,
            "bytes [0, 4096) of " + DataFileOf(rig, object.number) + ": Input/output error");
}

// The next sync of a data file fails, as on a disk that could not write all of it.
void FailNextSync(const CacheRig& rig) {
  const std::string path = rig.directory + "/fault";
  std::ofstream(path) << "data.synced 1 error";
  ASSERT_TRUE(ArmFaultPoint(path).ok());
}

TEST(CacheDamageTest, AFailedSyncLosesOnlyWhatWasFilledSinceTheLast) {
  CacheRig rig;
  const ObjectNumber number = rig.Acquire(kMiB)->number;
  const ByteRange durable{0, 65536}, lost{65536, 131072};
  rig.Execute(wire::FilledCommand{rig.live, durable});
  rig.cache->Sync();
  rig.Execute(wire::FilledCommand{rig.live, lost});
  FailNextSync(rig);
  testing::internal::CaptureStderr();
  rig.cache->Sync();
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_NE(log.find("object volume/object: 65536 bytes in [65536, 131072) of " +
                     DataFileOf(rig, number) +
                     " may not have reached the disk and are fetched again: fault point"),
            std::string::npos)
      << log;
  EXPECT_TRUE(rig.IsPresent(number, durable));
  EXPECT_FALSE(rig.IsPresent(number, lost));
  EXPECT_EQ(rig.cache->unsynced_bytes(), 0u);
  // A daemon that is killed now leaves no record that says otherwise.
  rig.Reopen();
  EXPECT_TRUE(rig.IsPresent(number, durable));
  EXPECT_FALSE(rig.IsPresent(number, lost));
}

TEST(CacheDamageTest, AfterAFailedSyncAReadIsFetchedByANewInstance) {
  CacheRig rig;
  const ObjectNumber number = rig.Acquire(kMiB)->number;
  const ByteRange range{0, 65536};
  rig.Execute(wire::FilledCommand{rig.live, range});
  FailNextSync(rig);
  rig.cache->Sync();
  // What it wrote before the sync may be lost, whenever it declares it.
  EXPECT_EQ(rig.Execute(wire::FilledCommand{rig.live, {131072, 196608}}), -EINVAL);
  std::optional<Status> read;
  rig.cache->Read(number, range, [&](const Status& status, const FileSlice&) { read = status; });
  const auto close = rig.cache->device().NextMessage();
  ASSERT_TRUE(close && std::holds_alternative<wire::CloseMessage>(close->message));
  EXPECT_EQ(std::get<wire::CloseMessage>(close->message).object_id, rig.live);
  const auto open = rig.NextOpen();
  ASSERT_TRUE(open.has_value());
  EXPECT_NE(open->object_id, rig.live);
  EXPECT_EQ(rig.Execute(wire::CopenCommand{open->msg_id, kMiB, 0}), 0);
  EXPECT_EQ(rig.NextRead()->range, range);
  EXPECT_EQ(rig.Execute(wire::FilledCommand{open->object_id, range}), 0);
  ASSERT_TRUE(read.has_value());
  EXPECT_TRUE(read->ok()) << read->message();
  rig.cache->Sync();
  rig.Reopen("00000000-0000-4000-8000-000000000002");
  EXPECT_TRUE(rig.IsPresent(number, range));
}

// Calls `after_fill` once presence of this boot has been recorded, before it counts.
class FillHookStore : public ForwardingStore {
 public:
  FillHookStore(std::unique_ptr<MetadataStore> store, std::function<void()>* after_fill)
      : ForwardingStore(std::move(store)), after_fill_(after_fill) {}
  Status Commit(const MetadataBatch& batch, Sync sync) override {
    const Status status = ForwardingStore::Commit(batch, sync);
    if (!batch.add_presence.empty() && batch.add_presence.front().presence == Presence::kThisBoot &&
        *after_fill_) {
      std::exchange(*after_fill_, nullptr)();
    }
    return status;
  }

 private:
  std::function<void()>* const after_fill_;
};

TEST(CacheDamageTest, AFillThatASyncFailsUnderIsRefusedAndNotBelievedLater) {
  CacheRig rig;
  std::function<void()> after_fill;
  rig.wrap_store = [&](std::unique_ptr<MetadataStore> store) {
    return std::make_unique<FillHookStore>(std::move(store), &after_fill);
  };
  rig.Reopen();
  const ObjectNumber number = rig.Acquire(kMiB)->number;
  const ByteRange first{0, 65536}, second{65536, 131072};
  rig.Execute(wire::FilledCommand{rig.live, first});
  after_fill = [&] {
    FailNextSync(rig);
    rig.cache->Sync();
  };
  EXPECT_EQ(rig.Execute(wire::FilledCommand{rig.live, second}), -EINVAL);
  EXPECT_FALSE(rig.IsPresent(number, second));
  rig.Reopen();
  EXPECT_FALSE(rig.IsPresent(number, first));
  EXPECT_FALSE(rig.IsPresent(number, second));
}

// Keeps no journal, whose records would stay in the database's memory for a while.
class NoJournalStore : public ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  Status Commit(const MetadataBatch& batch, Sync sync) override {
    MetadataBatch rest = batch;
    rest.put_journal.clear();
    rest.erase_journal.clear();
    return rest.empty() ? Status() : ForwardingStore::Commit(rest, sync);
  }
};

TEST(CacheDamageTest, ARefusedNameIsForgotten) {
  CacheRig rig;
  rig.wrap_store = [](std::unique_ptr<MetadataStore> store) {
    return std::make_unique<NoJournalStore>(std::move(store));
  };
  rig.Reopen();
  const ObjectNumber volume = *rig.cache->AddVolume("volume");
  const auto refuse = [&](int name) {
    std::string cookie = std::to_string(name);
    cookie.resize(250, 'x');
    rig.cache->Acquire({volume, "volume"}, cookie, {}, Freshness::kKnown,
                       [](const Result<ObjectInfo>&) {});
    const auto open = rig.NextOpen();
    ASSERT_TRUE(open.has_value());
    rig.Execute(wire::CopenCommand{open->msg_id, -ENOENT, 0});
  };
  for (int i = 0; i < 100; ++i) refuse(i);
  const size_t before = mallinfo2().uordblks;
  constexpr int kNames = 2000;
  for (int i = 100; i < 100 + kNames; ++i) refuse(i);
  const size_t after = mallinfo2().uordblks;
  // A name that stayed would take 250 bytes and more.
  EXPECT_LT(after, before + kNames * 100);
}

class NoIdsStore : public ForwardingStore {
 public:
  NoIdsStore(std::unique_ptr<MetadataStore> store, const bool* lacks_ids)
      : ForwardingStore(std::move(store)), lacks_ids_(lacks_ids) {}
  Result<uint64_t> Reserve(Counter counter, uint64_t count) override {
    if (*lacks_ids_ && counter == Counter::kMsgId) return Status(ENOSPC, "no ids");
    return ForwardingStore::Reserve(counter, count);
  }

 private:
  const bool* const lacks_ids_;
};

TEST(CacheDamageTest, WhatIsNotAskedForAheadWithoutIdsIsAskedForLater) {
  constexpr uint64_t kStep = 128 << 10;
  CacheOptions options;
  options.msg_id_block = 8;
  CacheRig rig(options, /*read_ahead_max=*/8 * kMiB);
  const ObjectNumber number = rig.Acquire(64 * kMiB)->number;
  ASSERT_EQ(rig.Execute(wire::FilledCommand{rig.live, {0, kMiB}}), 0);
  bool lacks_ids = false;
  rig.wrap_store = [&](std::unique_ptr<MetadataStore> store) {
    return std::make_unique<NoIdsStore>(std::move(store), &lacks_ids);
  };
  rig.Reopen();
  lacks_ids = true;
  std::optional<Status> ended;
  for (uint64_t at = 62 * kMiB; !ended; at -= kMiB) {
    rig.cache->Read(number, ByteRange::At(at, 4096),
                    [&](const Status& status, const FileSlice&) { ended = status; });
  }
  ASSERT_EQ(ended->error(), ENOSPC);
  auto read_until = [&, at = uint64_t{0}](uint64_t end) mutable {
    for (; at < end; at += kStep) EXPECT_TRUE(rig.IsPresent(number, ByteRange::At(at, kStep)));
  };
  read_until(kMiB * 3 / 4);
  lacks_ids = false;
  rig.AnswerOpen(64 * kMiB);
  while (rig.NextRead()) continue;
  read_until(kMiB);
  const auto ahead = rig.NextRead();
  ASSERT_TRUE(ahead.has_value());
  EXPECT_EQ(ahead->range.begin, kMiB);
}

class NoRecordsStore : public ForwardingStore {
 public:
  NoRecordsStore(std::unique_ptr<MetadataStore> store, const bool* refuses)
      : ForwardingStore(std::move(store)), refuses_(refuses) {}
  Status Commit(const MetadataBatch& batch, Sync sync) override {
    if (*refuses_ && !batch.put_objects.empty()) return Status(ENOSPC, "no records");
    return ForwardingStore::Commit(batch, sync);
  }

 private:
  const bool* const refuses_;
};

TEST(CacheDamageTest, ARecordThatTheStoreDoesNotTakeIsWrittenByALaterSync) {
  CacheRig rig;
  bool refuses = false;
  rig.wrap_store = [&](std::unique_ptr<MetadataStore> store) {
    return std::make_unique<NoRecordsStore>(std::move(store), &refuses);
  };
  rig.Reopen();
  const ObjectNumber number = rig.Acquire(kMiB)->number;
  refuses = true;
  ASSERT_EQ(rig.Execute(wire::FactsCommand{rig.live, {.modified_s = 77}}), 0);
  rig.cache->Sync();
  refuses = false;
  rig.cache->Sync();
  rig.Reopen();
  EXPECT_EQ(rig.cache->Stat(number)->facts->modified_s, 77u);
}

// A directory in the place of the first file that an open makes: the database is kept in memory.
TEST(CacheDamageTest, AnObjectWithoutItsFileWaitsForADiskThatTakesNoWritesAndTheOthersDoNot) {
  CacheRig rig;
  std::vector<ObjectNumber> numbers;
  for (const char* cookie : {"lost", "other"}) {
    rig.cookie = cookie;
    numbers.push_back(rig.Acquire(kMiB)->number);
    rig.Write({0, kMiB / 2}, 'a');
    ASSERT_EQ(rig.Execute(wire::FilledCommand{rig.live, {0, kMiB / 2}}), 0);
  }
  rig.cache->Sync();
  rig.cache.reset();
  const std::filesystem::path lock = rig.directory + "/db/LOCK";
  std::filesystem::remove(lock);
  std::filesystem::create_directory(lock);
  std::filesystem::remove(DataFileOf(rig, numbers[0]));
  rig.Open();
  rig.cookie = "lost";
  const Result<ObjectInfo> known = rig.Acquire(kMiB);
  ASSERT_TRUE(known.ok()) << known.status().message();
  EXPECT_EQ(known->number, numbers[0]);
  EXPECT_EQ(known->present_bytes, 0u);
  EXPECT_TRUE(rig.cache->TryRead(numbers[0], {kMiB, kMiB + 1})->has_value())
      << "nothing, at its end";
  std::optional<Status> ended;
  for (const ObjectNumber number : numbers) {
    rig.cache->Read(number, {kMiB / 2, kMiB}, [&, number](const Status& status, const FileSlice&) {
      if (number == numbers[0]) ended = status;
    });
  }
  int failure = 0;
  const auto message = rig.cache->device().NextMessage(SIZE_MAX, &failure);
  EXPECT_EQ(failure, 0);
  ASSERT_TRUE(message && std::holds_alternative<wire::OpenMessage>(message->message));
  EXPECT_EQ(std::get<wire::OpenMessage>(message->message).cookie_key, "other");
  EXPECT_FALSE(rig.cache->device().NextMessage(SIZE_MAX, &failure));
  EXPECT_EQ(failure, 0);
  EXPECT_FALSE(rig.cache->device().HasMessage()) << "one that is held";
  std::filesystem::remove(lock);
  rig.cache->Heal();
  // It is tried again after a second of the real clock, for which there is no event.
  ASSERT_TRUE(WaitUntil([&] { return rig.cache->device().HasMessage(); },
                        Deadline(std::chrono::milliseconds(30'000)))
                  .ok());
  rig.live = rig.AnswerOpen(kMiB);
  const auto read = rig.NextRead();
  ASSERT_TRUE(read);
  rig.Write(read->range, 'b');
  EXPECT_EQ(rig.Execute(wire::FilledCommand{rig.live, read->range}), 0);
  ASSERT_TRUE(ended && ended->ok());
  rig.Reopen();
  EXPECT_TRUE(rig.IsPresent(numbers[0], {kMiB / 2, kMiB}));
  EXPECT_FALSE(rig.IsPresent(numbers[0], {0, 4096})) << "of the file that was lost";
}

}  // namespace
}  // namespace cachecore
