#include "cachecore/cache/culler.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "tests/cachecore/base/captured_log.h"
#include "tests/cachecore/cache/cache_rig.h"

namespace cachecore {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr ByteRange kFirst{0, 4 * kMiB};
constexpr ByteRange kSecond{4 * kMiB, 8 * kMiB};

class CullerTest : public testing::Test {
 protected:
  // An object of two parts, both present.
  void SetUp() override {
    number_ = rig_.Acquire(8 * kMiB)->number;
    Fill({0, 8 * kMiB}, 'a');
  }
  // After a cull the object is opened again, and then asked for.
  std::optional<wire::ReadMessage> ReopenAndNextRead() {
    EXPECT_TRUE(std::holds_alternative<wire::CloseMessage>(
        rig_.cache->device().NextMessage().value().message));
    rig_.live = rig_.AnswerOpen(8 * kMiB);
    return rig_.NextRead();
  }
  void Fill(ByteRange range, char byte) {
    rig_.Write(range, byte);
    ASSERT_EQ(rig_.Execute(wire::FilledCommand{rig_.live, range}), 0);
  }
  uint64_t Allocated() {
    struct stat info;
    EXPECT_EQ(stat(rig_.cache->PathOfData(number_).c_str(), &info), 0);
    return static_cast<uint64_t>(info.st_blocks) * 512;
  }
  std::vector<CullPart> Parts(const Culler::IsMounted& is_mounted) {
    uint64_t allocated = 0, pinned = 0;
    const auto parts = rig_.cache->culler().FindParts(is_mounted, &allocated, &pinned);
    EXPECT_TRUE(parts.ok());
    return *parts;
  }

  static CacheOptions Options() {
    CacheOptions options;
    options.engine.notes_uses = true;
    return options;
  }

  CacheRig rig_{Options()};
  ObjectNumber number_;
};

bool IsNever(const std::string&, const std::string&) { return false; }

TEST_F(CullerTest, WhatIsCulledIsAbsentAndItsRoomIsFree) {
  rig_.cache->Sync();
  ASSERT_TRUE(rig_.cache->culler().Cull(number_, kFirst).ok());
  EXPECT_FALSE(rig_.IsPresent(number_, {0, 4096}));
  EXPECT_TRUE(rig_.IsPresent(number_, kSecond));
  EXPECT_LE(Allocated(), 4 * kMiB + 65536);
  EXPECT_EQ(rig_.cache->counters().bytes_culled, 4 * kMiB);
}

TEST_F(CullerTest, ALaterDaemonFindsItAbsentToo) {
  for (const bool synced : {false, true}) {
    if (synced) rig_.cache->Sync();
    ASSERT_TRUE(rig_.cache->culler().Cull(number_, kFirst).ok());
    rig_.cache->Sync();
    rig_.Reopen();
    EXPECT_FALSE(rig_.IsPresent(number_, {0, 4096}));
    EXPECT_TRUE(rig_.IsPresent(number_, kSecond));
    rig_.Reopen("00000000-0000-4000-8000-00000000000" + std::to_string(synced ? 3 : 2));
    EXPECT_FALSE(rig_.IsPresent(number_, {0, 4096}));
    EXPECT_TRUE(rig_.IsPresent(number_, kSecond));
  }
}

TEST_F(CullerTest, APinnedObjectStaysUntilItIsUnpinnedAlsoForALaterDaemon) {
  Culler* culler = &rig_.cache->culler();
  ASSERT_TRUE(culler->SetPinned("volume", "object", true).ok());
  EXPECT_EQ(culler->Cull(number_, kFirst).error(), EBUSY);
  rig_.Reopen();
  culler = &rig_.cache->culler();
  for (const bool is_loaded : {false, true}) {
    EXPECT_TRUE(!is_loaded || rig_.IsPresent(number_, kFirst));
    uint64_t allocated = 0, pinned = 0;
    const auto parts = culler->FindParts(IsNever, &allocated, &pinned);
    ASSERT_TRUE(parts.ok());
    EXPECT_TRUE(parts->empty());
    EXPECT_EQ(pinned, allocated);
    EXPECT_GE(pinned, kFirst.size() + kSecond.size());
    EXPECT_EQ(culler->Cull(number_, kFirst).error(), EBUSY);
    EXPECT_EQ(culler->DropUnused(number_, IsNever).error(), EBUSY);
  }
  ASSERT_TRUE(culler->SetPinned("volume", "object", false).ok());
  EXPECT_FALSE(Parts(IsNever).empty());
  EXPECT_TRUE(culler->Cull(number_, kFirst).ok());
}

TEST_F(CullerTest, AnObjectIsTakenOutButForWhatAReadWaitsFor) {
  ASSERT_TRUE(rig_.cache->culler().Cull(number_, kFirst).ok());
  std::optional<Status> ended;
  rig_.cache->Read(number_, {kFirst.end - 4096, kFirst.end + 4096},
                   [&](const Status& status, const FileSlice&) { ended = status; });
  ASSERT_TRUE(rig_.cache->culler().CullObject(number_).ok());
  EXPECT_TRUE(rig_.IsPresent(number_, kSecond));
  const auto read = ReopenAndNextRead();
  ASSERT_TRUE(read.has_value());
  Fill(kFirst, 'c');
  ASSERT_TRUE(ended.has_value() && ended->ok());
  EXPECT_EQ(rig_.Execute(wire::CreadCommand{rig_.live, read->msg_id, 0}), 0);
  ASSERT_TRUE(rig_.cache->culler().CullObject(number_).ok());
  EXPECT_EQ(rig_.cache->DescribeObjects().at(0).present_bytes, 0u);
  EXPECT_LT(Allocated(), kMiB);
  EXPECT_TRUE(rig_.cache->culler().CullObject(number_).ok());  // Nothing is left to be done.
}

TEST_F(CullerTest, AnObjectIsDroppedWithItsPinUnlessAMountShowsItOrAReaderWaits) {
  Culler& culler = rig_.cache->culler();
  ASSERT_TRUE(culler.SetPinned("volume", "object", true).ok());
  const auto always = [](const std::string&, const std::string&) { return true; };
  EXPECT_EQ(culler.Drop(number_, always).error(), EBUSY);
  {
    const auto slice = rig_.cache->TryRead(number_, kFirst);
    ASSERT_TRUE(slice.ok() && slice->has_value());
    EXPECT_EQ(culler.Drop(number_, IsNever).error(), EBUSY);
  }
  EXPECT_TRUE(rig_.IsPresent(number_, kFirst));
  EXPECT_TRUE(rig_.cache->choices().IsPinned("volume", "object"));
  ASSERT_TRUE(culler.Drop(number_, IsNever).ok());
  EXPECT_FALSE(std::filesystem::exists(rig_.cache->PathOfData(number_)));
  EXPECT_FALSE(rig_.cache->choices().IsPinned("volume", "object"));
  EXPECT_EQ(culler.Drop(number_, IsNever).error(), ESTALE);
  rig_.Reopen();
  EXPECT_TRUE(rig_.cache->DescribeObjects().empty());
  EXPECT_FALSE(rig_.cache->choices().IsPinned("volume", "object"));
}

TEST_F(CullerTest, TheLastUseIsKnownInMemoryAndOfTheDisk) {
  const auto is_now = [&] {
    const ObjectUse use = rig_.cache->culler().UseOf(number_);
    EXPECT_GE(use.allocated, kFirst.size() + kSecond.size());
    return use.used + 60 > WallSeconds() && use.used <= WallSeconds();
  };
  EXPECT_TRUE(is_now());
  rig_.cache->culler().KeepUses();
  rig_.Reopen();
  const timespec long_ago[2] = {{1000, 0}, {1000, 0}};
  ASSERT_EQ(utimensat(AT_FDCWD, rig_.cache->PathOfData(number_).c_str(), long_ago, 0), 0);
  EXPECT_TRUE(is_now());  // Its record counts.
  EXPECT_TRUE(rig_.cache->Stat(number_).ok());
  EXPECT_TRUE(is_now());
}

TEST_F(CullerTest, WhatAReadWaitsForStays) {
  ASSERT_TRUE(rig_.cache->culler().Cull(number_, kFirst).ok());
  std::optional<Status> ended;
  rig_.cache->Read(number_, {kFirst.end - 4096, kFirst.end + 4096},
                   [&](const Status& status, const FileSlice&) { ended = status; });
  EXPECT_EQ(rig_.cache->culler().Cull(number_, kSecond).error(), EBUSY);
  EXPECT_TRUE(rig_.IsPresent(number_, kSecond));
  EXPECT_FALSE(ended.has_value());
}

TEST_F(CullerTest, AReadThatWaitsElsewhereDoesNotKeepIt) {
  ASSERT_TRUE(rig_.cache->culler().Cull(number_, kFirst).ok());
  std::optional<FileSlice> found;
  rig_.cache->Read(number_, {0, 4096}, [&](const Status& status, const FileSlice& slice) {
    ASSERT_TRUE(status.ok());
    found = slice;
  });
  const auto read = ReopenAndNextRead();
  ASSERT_TRUE(read.has_value());
  EXPECT_TRUE(rig_.cache->culler().Cull(number_, kSecond).ok());
  // The cull has ended the instance: the READ goes to the next one.
  EXPECT_TRUE(ReopenAndNextRead().has_value());
  Fill({0, 4096}, 'b');
  ASSERT_TRUE(found.has_value());
  char byte = 0;
  ASSERT_EQ(pread(found->file->get(), &byte, 1, 0), 1);
  EXPECT_EQ(byte, 'b');
}

TEST_F(CullerTest, WhatAReplyStillUsesStays) {
  auto slice = rig_.cache->TryRead(number_, {0, 4096});
  ASSERT_TRUE(slice.ok() && slice->has_value());
  for (int i = 0; i < 3; ++i) {  // The object has another descriptor after each.
    EXPECT_EQ(rig_.cache->culler().Cull(number_, kFirst).error(), ETIMEDOUT);
    EXPECT_TRUE(rig_.IsPresent(number_, kFirst));
    char byte = 0;
    EXPECT_EQ(pread((*slice)->file->get(), &byte, 1, 0), 1);
    EXPECT_EQ(byte, 'a');
  }
  // The fetcher has lost nothing by it.
  EXPECT_EQ(rig_.Execute(wire::FilledCommand{rig_.live, kFirst}), 0);
  slice->reset();
  EXPECT_TRUE(rig_.cache->culler().Cull(number_, kFirst).ok());
}

TEST_F(CullerTest, WhatWasWrittenBeforeAndIsDeclaredLaterDoesNotCount) {
  rig_.Write(kFirst, 'b');
  ASSERT_TRUE(rig_.cache->culler().Cull(number_, kFirst).ok());
  EXPECT_EQ(rig_.Execute(wire::FilledCommand{rig_.live, kFirst}), -EINVAL);
  EXPECT_FALSE(rig_.IsPresent(number_, {0, 4096}));
  rig_.Reopen();
  EXPECT_FALSE(rig_.IsPresent(number_, {0, 4096}));
}

TEST_F(CullerTest, WhatWasCulledIsFetchedAgain) {
  ASSERT_TRUE(rig_.cache->culler().Cull(number_, kFirst).ok());
  std::optional<Status> ended;
  rig_.cache->Read(number_, {0, 4096},
                   [&](const Status& status, const FileSlice&) { ended = status; });
  const auto read = ReopenAndNextRead();
  ASSERT_TRUE(read.has_value());
  Fill(read->range, 'c');
  ASSERT_TRUE(ended.has_value() && ended->ok());
  EXPECT_EQ(rig_.cache->counters().bytes_filled_twice, 0u);
}

TEST_F(CullerTest, WhatNoMountShowsGoesFirstAndThenWhatWasUsedLeastRecently) {
  std::vector<CullPart> parts = Parts(IsNever);
  ASSERT_EQ(parts.size(), 2u);
  // Until the time that uses are noted with has moved.
  const Duration end = Clock::Monotonic().Now() + std::chrono::seconds(10);
  while (!(parts[0].range == kSecond) && Clock::Monotonic().Now() < end) {
    rig_.cache->Expire();
    ASSERT_TRUE(rig_.IsPresent(number_, {0, 4096}));
    parts = Parts(IsNever);
  }
  EXPECT_EQ(parts[0].range, kSecond);
  EXPECT_EQ(parts[1].range, kFirst);
  EXPECT_EQ(parts[0].bytes, 4 * kMiB);
  EXPECT_FALSE(parts[0].is_mounted);
  parts = Parts([](const std::string& volume, const std::string& cookie) {
    return volume == "volume" && cookie == "object";
  });
  EXPECT_TRUE(parts[0].is_mounted);
}

TEST_F(CullerTest, OfALargeObjectTheFewPartsAreFoundThatArePresent) {
  constexpr uint64_t kLarge = uint64_t{8} << 40;
  CacheRig rig(Options());
  const ObjectNumber number = rig.Acquire(kLarge)->number;
  for (const uint64_t at : {uint64_t{0}, kLarge - 8 * kMiB}) {
    const ByteRange block = ByteRange::At(at, kBlockSize);
    rig.Write(block, 'a');
    ASSERT_EQ(rig.Execute(wire::FilledCommand{rig.live, block}), 0);
    ASSERT_TRUE(rig.IsPresent(number, block));
  }
  uint64_t allocated = 0, pinned = 0;
  const auto parts = rig.cache->culler().FindParts(IsNever, &allocated, &pinned);
  ASSERT_TRUE(parts.ok() && parts->size() == 2);
  EXPECT_EQ(parts->at(1).range, ByteRange::At(kLarge - 8 * kMiB, 4 * kMiB));
  ASSERT_TRUE(rig.cache->culler().Cull(number, parts->at(1).range).ok());
  EXPECT_FALSE(rig.IsPresent(number, parts->at(1).range));
}

TEST_F(CullerTest, AnObjectThatIsOnDiskAloneIsKnownByItsRecords) {
  rig_.cache->Sync();
  rig_.Reopen();
  const auto is_mounted = [](const std::string& volume, const std::string& cookie) {
    return volume == "volume" && cookie == "object";
  };
  for (const CullPart& part : Parts(is_mounted)) {
    EXPECT_TRUE(part.is_mounted);
    EXPECT_EQ(part.bytes, 4 * kMiB);
    ASSERT_TRUE(rig_.cache->culler().Cull(number_, part.range).ok());
  }
  EXPECT_EQ(Allocated(), 0u);
  EXPECT_TRUE(Parts(IsNever).empty());
}

// By wall-clock seconds, as an earlier life has left them.
TEST_F(CullerTest, TheNextDaemonKnowsWhenThePartsWereUsed) {
  rig_.cache->Sync();
  rig_.cache->culler().KeepUses();
  rig_.cache.reset();
  {
    const auto store = OpenRocksDbMetadataStore(rig_.directory + "/db", rig_.boot_id).value();
    MetadataBatch batch;
    batch.put_uses = store->LoadUses(number_);
    ASSERT_EQ(batch.put_uses.size(), 1u);
    batch.put_uses[0].seconds[1] -= 3600;  // The first part was used last.
    ASSERT_TRUE(store->Commit(batch, Sync::kNo).ok());
  }
  for (const bool is_loaded : {false, true}) {
    rig_.Reopen();
    if (is_loaded) {
      ASSERT_TRUE(rig_.cache->Stat(number_).ok());
    }
    const std::vector<CullPart> parts = Parts(IsNever);
    ASSERT_EQ(parts.size(), 2u);
    EXPECT_EQ(parts[0].range, kSecond);
    EXPECT_GE(parts[0].age, std::chrono::seconds(3600));
    EXPECT_LT(parts[1].age, std::chrono::minutes(10));
  }
}

TEST_F(CullerTest, WhatNoRecordSaysIsAsOldAsTheFile) {
  rig_.cache->Sync();
  rig_.cache.reset();
  const timespec long_ago[2] = {{1000, 0}, {1000, 0}};
  const std::string path = DataStore::PathIn(rig_.directory + "/data", number_);
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), long_ago, 0), 0);
  rig_.Open();
  ASSERT_TRUE(rig_.cache->Stat(number_).ok());
  EXPECT_TRUE(rig_.IsPresent(number_, {0, 4096}));
  const std::vector<CullPart> parts = Parts(IsNever);
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_EQ(parts[0].range, kSecond);  // Reads of the first part make it no younger.
  EXPECT_GT(parts[0].age, std::chrono::hours(24));
  EXPECT_LT(parts[1].age, std::chrono::hours(1));
}

TEST_F(CullerTest, WhatIsAllocatedAndNotPresentGoesFirst) {
  ASSERT_TRUE(rig_.cache->culler().Cull(number_, kFirst).ok());
  rig_.Write(kFirst, 'b');  // Never declared.
  for (const bool is_loaded : {true, false}) {
    if (!is_loaded) {
      rig_.cache->Sync();
      rig_.Reopen();
    }
    const std::vector<CullPart> parts = Parts(IsNever);
    ASSERT_EQ(parts.size(), 2u);
    EXPECT_EQ(parts[0].range, kFirst);
    EXPECT_EQ(parts[0].bytes, 4 * kMiB);
  }
  ASSERT_TRUE(rig_.cache->culler().Cull(number_, kFirst).ok());
  EXPECT_LE(Allocated(), 4 * kMiB + 65536);
  EXPECT_TRUE(rig_.IsPresent(number_, kSecond));
}

// It is a use of neither part; the second is as old as the file.
TEST_F(CullerTest, ACullLeavesTheAgeOfTheFile) {
  rig_.cache->Sync();
  rig_.cache.reset();
  const timespec long_ago[2] = {{1000, 0}, {1000, 0}};
  const std::string path = DataStore::PathIn(rig_.directory + "/data", number_);
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), long_ago, 0), 0);
  rig_.Open();
  ASSERT_TRUE(rig_.cache->culler().Cull(number_, kFirst).ok());
  struct stat info;
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mtim.tv_sec, 1000);
  rig_.Reopen();
  const std::vector<CullPart> parts = Parts(IsNever);
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_GT(parts[0].age, std::chrono::hours(24));
}

TEST_F(CullerTest, DamagedRecordsOfUsesStopNothing) {
  rig_.cache->Sync();
  // Their blocks are most of the database.
  MetadataBatch batch;
  constexpr uint32_t kLeaves = 4000;
  for (uint32_t leaf = 0; leaf < kLeaves; ++leaf) batch.put_uses.push_back({number_, leaf, {1}});
  rig_.cache.reset();
  for (int life = 0; life < 2; ++life) {  // The log becomes a table file.
    const auto store = OpenRocksDbMetadataStore(rig_.directory + "/db", rig_.boot_id).value();
    ASSERT_TRUE(store->Commit(batch, Sync::kYes).ok());
    batch = {};
  }
  for (const auto& entry : std::filesystem::directory_iterator(rig_.directory + "/db")) {
    if (entry.path().extension() != ".sst" || entry.file_size() < 65536) continue;
    std::fstream table(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    table.seekp(static_cast<std::streamoff>(entry.file_size() / 2));
    table << "garbage";
  }
  rig_.Open();
  CapturedLog log;
  for (int round = 0; round < 2; ++round) {
    const std::vector<CullPart> parts = Parts(IsNever);
    ASSERT_EQ(parts.size(), 2u);
    EXPECT_EQ(parts[0].bytes, 4 * kMiB);
  }
  EXPECT_EQ(log.Count("last used is lost"), 1);
  EXPECT_TRUE(rig_.cache->Stat(number_).ok());
  EXPECT_TRUE(rig_.IsPresent(number_, kSecond));
  EXPECT_TRUE(rig_.cache->culler().Cull(number_, kFirst).ok());
}

TEST_F(CullerTest, WhatARequestMayBringIsNotLeftOver) {
  ASSERT_TRUE(rig_.cache->culler().Cull(number_, kFirst).ok());
  rig_.cache->Read(number_, {0, 4096}, [](const Status&, const FileSlice&) {});
  ASSERT_TRUE(ReopenAndNextRead().has_value());
  rig_.Write(kFirst, 'b');
  const std::vector<CullPart> parts = Parts(IsNever);
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_EQ(parts[0].range, kSecond);
}

TEST(CullerTreeTest, NothingIsLeftOfAnObjectWithoutPresentBytes) {
  constexpr uint64_t kOdd = 4 * kMiB + 100;
  CacheRig rig;
  const ObjectNumber number = rig.Acquire(kOdd)->number;
  ASSERT_EQ(rig.Execute(wire::VerityCommand{rig.live, Digest{1}}), 0);
  const VerityLayout layout(kOdd);
  rig.Write({0, kOdd}, 'a');
  rig.Write({layout.tail_offset(), layout.tail_end()}, 't');
  ASSERT_EQ(rig.Execute(wire::FilledCommand{rig.live, {0, kOdd}}), 0);
  const auto allocated = [&] {
    struct stat info;
    EXPECT_EQ(stat(rig.cache->PathOfData(number).c_str(), &info), 0);
    return static_cast<uint64_t>(info.st_blocks) * 512;
  };
  ASSERT_TRUE(rig.cache->culler().Cull(number, {4 * kMiB, kOdd}).ok());
  EXPECT_GT(allocated(), 4 * kMiB);  // With the tree.
  ASSERT_TRUE(rig.cache->culler().Cull(number, kFirst).ok());
  EXPECT_EQ(allocated(), 0u);
}

TEST(CullerTreeTest, WhatIsLeftOverInTheLastPartBeforeATreeIsFound) {
  constexpr uint64_t kOdd = 5 * kMiB + 100;
  CacheRig rig;
  ASSERT_TRUE(rig.Acquire(kOdd).ok());
  ASSERT_EQ(rig.Execute(wire::VerityCommand{rig.live, Digest{1}}), 0);
  const VerityLayout layout(kOdd);
  rig.Write({0, kOdd}, 'a');
  rig.Write({layout.tail_offset(), layout.tail_end()}, 't');
  ASSERT_EQ(rig.Execute(wire::FilledCommand{rig.live, kFirst}), 0);
  uint64_t allocated = 0, pinned = 0;
  const auto parts = rig.cache->culler().FindParts(IsNever, &allocated, &pinned);
  ASSERT_TRUE(parts.ok() && parts->size() == 2);
  EXPECT_EQ(parts->at(0).range, (ByteRange{4 * kMiB, kOdd}));
  EXPECT_EQ(parts->at(0).bytes, kMiB + 100);
}

}  // namespace
}  // namespace cachecore
