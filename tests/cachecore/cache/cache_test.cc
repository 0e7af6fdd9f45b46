#include "cachecore/cache/cache.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "cachecore/verity/block_hasher.h"
#include "tests/cachecore/cache/cache_rig.h"
#include "tests/cachecore/store/forwarding_store.h"

namespace cachecore {
namespace {

constexpr uint64_t kMiB = 1 << 20;

struct Waiting {
  std::optional<Status> ended;
  ReadTicket ticket;
};

std::unique_ptr<Waiting> StartRead(CacheRig* rig, ObjectNumber number, ByteRange range) {
  auto waiting = std::make_unique<Waiting>();
  waiting->ticket = rig->cache->Read(
      number, range,
      [raw = waiting.get()](const Status& status, const FileSlice&) { raw->ended = status; });
  return waiting;
}

TEST(CacheTest, ABlockWrittenDeclaredAndReadIsTheFetchersBytes) {
  CacheRig rig;
  const ObjectInfo object = *rig.Acquire(kMiB);
  auto read = StartRead(&rig, object.number, {0, 4096});
  const auto message = rig.NextRead();
  rig.Write({0, 65536}, 'x');
  EXPECT_EQ(rig.Execute(wire::FilledCommand{rig.live, {0, 65536}}), 0);
  EXPECT_TRUE(read->ended && read->ended->ok());
  EXPECT_EQ(rig.Execute(wire::CreadCommand{rig.live, message->msg_id, 0}), 0);
  const auto slice = rig.cache->TryRead(object.number, {10, 11});
  char byte = 0;
  ASSERT_EQ(pread((*slice)->file->get(), &byte, 1, 10), 1);
  EXPECT_EQ(byte, 'x');
}

TEST(CacheTest, AShutObjectsReadsEndWithEioUntilItIsOpenedUpAgain) {
  CacheRig rig;
  const ObjectInfo object = *rig.Acquire(kMiB);
  rig.Write({0, 65536}, 'x');
  EXPECT_EQ(rig.Execute(wire::FilledCommand{rig.live, {0, 65536}}), 0);
  const auto first = StartRead(&rig, object.number, {65536, 69632});
  const auto second = StartRead(&rig, object.number, {500'000, 600'000});
  rig.cache->SetRefusesReads(object.number, true);
  EXPECT_EQ(first->ended->error(), EIO);
  EXPECT_EQ(second->ended->error(), EIO);
  EXPECT_EQ(StartRead(&rig, object.number, {131072, 135168})->ended->error(), EIO);
  EXPECT_TRUE(rig.IsPresent(object.number, {0, 65536}));
  rig.cache->SetRefusesReads(object.number, false);
  const auto third = StartRead(&rig, object.number, {131072, 135168});
  EXPECT_FALSE(third->ended.has_value());
}

TEST(CacheTest, FilledBytesArePresentInTheNextLifeWithoutAFetcher) {
  CacheRig rig;
  const ObjectInfo object = *rig.Acquire(kMiB);
  rig.Write({0, 65536}, 'x');
  EXPECT_EQ(rig.Execute(wire::FilledCommand{rig.live, {0, 65536}}), 0);
  rig.Reopen();
  const Result<ObjectInfo> again = rig.Acquire(kMiB);
  EXPECT_EQ(again->number, object.number);
  EXPECT_EQ(again->size_bytes, kMiB);
  EXPECT_FALSE(rig.cache->device().NextMessage().has_value());
  EXPECT_TRUE(rig.IsPresent(object.number, {0, 65536}));
  EXPECT_FALSE(rig.IsPresent(object.number, {65536, 65537}));
}

TEST(CacheTest, AfterARebootOnlyWhatWasSyncedIsTrusted) {
  CacheRig rig;
  const ObjectInfo object = *rig.Acquire(kMiB);
  rig.Write({0, 131072}, 'x');
  EXPECT_EQ(rig.Execute(wire::FilledCommand{rig.live, {0, 65536}}), 0);
  rig.cache->Sync();
  EXPECT_EQ(rig.Execute(wire::FilledCommand{rig.live, {65536, 131072}}), 0);
  rig.Reopen("00000000-0000-4000-8000-000000000002");
  EXPECT_TRUE(rig.IsPresent(object.number, {0, 65536}));
  EXPECT_FALSE(rig.IsPresent(object.number, {65536, 131072}));
}

TEST(CacheTest, WhatALifeDiedBeforeSyncingIsSyncedByTheNextWhetherOrNotItIsUsed) {
  for (const bool used : {false, true}) {
    CacheRig rig;
    const ObjectInfo object = *rig.Acquire(kMiB + 100);
    rig.Write({0, kMiB + 100}, 'x');
    EXPECT_EQ(rig.Execute(wire::FilledCommand{rig.live, {0, 65536}}), 0);
    rig.cache->Sync();
    EXPECT_EQ(rig.Execute(wire::FilledCommand{rig.live, {131072, 196608}}), 0);
    EXPECT_EQ(rig.Execute(wire::FilledCommand{rig.live, {kMiB - 4096, kMiB + 100}}), 0);
    rig.Reopen();
    if (used) {
      EXPECT_TRUE(rig.IsPresent(object.number, {131072, 196608}));
      EXPECT_EQ(rig.cache->unsynced_bytes(), 65536u + 4096 + 100);
    }
    rig.cache->Sync();
    EXPECT_EQ(rig.cache->unsynced_bytes(), 0u);
    EXPECT_EQ(rig.cache->sync_counters().bytes, 65536u + 4096 + 100);
    rig.Reopen("00000000-0000-4000-8000-000000000002");
    EXPECT_TRUE(rig.IsPresent(object.number, {0, 65536}));
    EXPECT_TRUE(rig.IsPresent(object.number, {131072, 196608}));
    EXPECT_TRUE(rig.IsPresent(object.number, {kMiB - 4096, kMiB + 100}));
    EXPECT_FALSE(rig.IsPresent(object.number, {65536, 131072}));
  }
}

TEST(CacheTest, ReadsPendingWhenTheDaemonDiedAreRequestedAgainBeforeTheFirstRead) {
  CacheRig rig;
  const ObjectInfo object = *rig.Acquire(kMiB);
  auto read = StartRead(&rig, object.number, {65536, 65537});
  EXPECT_TRUE(rig.NextRead().has_value());
  rig.Reopen();
  rig.AnswerOpen(kMiB);
  const auto again = rig.NextRead();
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(again->range, (ByteRange{65536, 131072}));
  EXPECT_EQ(rig.cache->DescribeRequests().size(), 1u);
}

TEST(CacheTest, ALookUpIsAnsweredWhenItsNodeIsKnownToTheNextLife) {
  CacheRig rig;
  const std::string as_it_was = rig.directory + "/as_it_was";
  const ObjectNumber volume = *rig.cache->AddVolume("volume");
  ObjectNumber number;
  rig.cache->Acquire({volume, "volume"}, "object", {}, Freshness::kKnown,
                     [&](const Result<ObjectInfo>& info) {
                       number = info->number;
                       std::filesystem::copy(rig.directory + "/db", as_it_was);
                     });
  rig.AnswerOpen(kMiB);
  const auto next_life = OpenRocksDbMetadataStore(as_it_was, rig.boot_id).value();
  EXPECT_TRUE(next_life->LoadObject(number)->has_value());
}

TEST(CacheTest, AnAnsweredReadIsNotAskedForInTheNextLife) {
  CacheRig rig;
  const ObjectInfo object = *rig.Acquire(kMiB);
  auto read = StartRead(&rig, object.number, {0, 4096});
  const auto message = rig.NextRead();
  rig.Execute(wire::FilledCommand{rig.live, message->range});
  rig.Execute(wire::CreadCommand{rig.live, message->msg_id, 0});
  rig.Reopen();
  EXPECT_TRUE(rig.cache->DescribeRequests().empty());
}

TEST(CacheTest, IdsOfOneLifeDoNotComeBackInTheNext) {
  CacheRig rig;
  const ObjectInfo object = *rig.Acquire(kMiB);
  auto read = StartRead(&rig, object.number, {0, 4096});
  const MsgId old = rig.NextRead()->msg_id;
  const ObjectId old_live = rig.live;
  rig.Reopen();
  rig.live = rig.AnswerOpen(kMiB);
  EXPECT_GT(rig.NextRead()->msg_id, old);
  EXPECT_GT(rig.live, old_live);
  EXPECT_EQ(rig.Execute(wire::CreadCommand{rig.live, old, 0}), -EINVAL);
  EXPECT_EQ(rig.Execute(wire::FilledCommand{old_live, {0, 4096}}), -EINVAL);
}

TEST(CacheTest, FillsOutsideTheObjectOrOfNoInstanceAreRefused) {
  CacheRig rig;
  const ObjectInfo object = *rig.Acquire(10000);
  EXPECT_EQ(rig.Execute(wire::FilledCommand{rig.live, {8192, 10001}}), -EINVAL);
  EXPECT_EQ(rig.Execute(wire::FilledCommand{ObjectId{12345}, {0, 4096}}), -EINVAL);
  EXPECT_FALSE(rig.IsPresent(object.number, {0, 1}));
  // A block that is written in part is not there, but for the object's last.
  EXPECT_EQ(rig.Execute(wire::FilledCommand{rig.live, {0, 512}}), 0);
  EXPECT_FALSE(rig.IsPresent(object.number, {0, 512}));
  EXPECT_EQ(rig.Execute(wire::FilledCommand{rig.live, {8192, 10000}}), 0);
  EXPECT_TRUE(rig.IsPresent(object.number, {8192, 10000}));
}

TEST(CacheTest, AFetcherThatClaimsAnImpossibleSizeIsRefused) {
  CacheRig rig;
  const ObjectNumber volume = *rig.cache->AddVolume("volume");
  std::optional<Status> answer;
  rig.cache->Acquire({volume, "volume"}, "object", {}, Freshness::kKnown,
                     [&](const Result<ObjectInfo>& info) { answer = info.status(); });
  const auto open = rig.NextOpen();
  EXPECT_EQ(rig.Execute(wire::CopenCommand{open->msg_id, INT64_MAX, 0}), -EFBIG);
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->error(), EFBIG);
}

TEST(CacheTest, AnEmptyObjectIsHeldAgainstItsDigestWhenItIsOpened) {
  CacheRig rig;
  const ObjectNumber volume = *rig.cache->AddVolume("volume");
  const auto open_empty = [&](const Digest& digest) {
    std::optional<Status> answer;
    rig.cache->Acquire(
        {volume, "volume"}, "object", {}, Freshness::kKnown,
        [&](const Result<ObjectInfo>& info) { answer = info.ok() ? Status() : info.status(); });
    const auto open = rig.NextOpen();
    EXPECT_EQ(rig.Execute(wire::VerityCommand{open->object_id, digest}), 0);
    const int32_t result = rig.Execute(wire::CopenCommand{open->msg_id, 0, 0});
    EXPECT_EQ(answer->error(), -result);
    return result;
  };
  EXPECT_EQ(open_empty(Digest{1, 2, 3}), -EBADMSG);
  EXPECT_EQ(open_empty(BlockHasher::OfThisThread().OfFile(0, {})), 0);
}

TEST(CacheTest, WhatIsFoundWrongBeforeItIsDurableDoesNotComeBack) {
  CacheRig rig;
  const Result<ObjectInfo> object = rig.Acquire(3 * 4096);
  ASSERT_TRUE(object.ok());
  EXPECT_EQ(rig.Execute(wire::VerityCommand{rig.live, Digest{1, 2, 3}}), 0);
  EXPECT_EQ(rig.Execute(wire::FilledCommand{rig.live, {0, 3 * 4096}}), 0);
  std::vector<uint8_t> buffer(4096);
  const auto slice = rig.cache->TryRead(object->number, {4096, 8192});
  ASSERT_TRUE(slice.ok() && slice->has_value());
  EXPECT_EQ(rig.cache->ReadChecked(**slice, buffer).error(), EAGAIN);
  EXPECT_FALSE(rig.IsPresent(object->number, {4096, 8192}));
  rig.cache->Sync();
  rig.Reopen();
  ASSERT_TRUE(rig.Acquire(0).ok());
  EXPECT_FALSE(rig.IsPresent(object->number, {4096, 8192}));
  rig.Reopen("00000000-0000-4000-8000-000000000002");
  ASSERT_TRUE(rig.Acquire(0).ok());
  EXPECT_FALSE(rig.IsPresent(object->number, {4096, 8192}));
}

TEST(CacheTest, AFailedOpenLeavesNothingBehind) {
  CacheRig rig;
  const ObjectNumber volume = *rig.cache->AddVolume("volume");
  std::optional<Status> answer;
  rig.cache->Acquire({volume, "volume"}, "object", {}, Freshness::kKnown,
                     [&](const Result<ObjectInfo>& info) { answer = info.status(); });
  const auto open = rig.NextOpen();
  rig.Execute(wire::CauseCommand{open->msg_id, "http://x/y: 404 Not Found"});
  rig.Execute(wire::CopenCommand{open->msg_id, -ENOENT, 0});
  EXPECT_EQ(answer->error(), ENOENT);
  EXPECT_EQ(answer->message(), "http://x/y: 404 Not Found");
  EXPECT_TRUE(rig.cache->DescribeObjects().empty());
  size_t files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(rig.directory + "/data")) {
    const bool is_mark = entry.path().filename() == DataStore::kMark;
    files += entry.is_regular_file() && !is_mark ? 1 : 0;
  }
  EXPECT_EQ(files, 0u);
}

TEST(CacheTest, AnObjectWhoseDataFileIsLostIsFetchedAgainUnderItsNumber) {
  CacheRig rig;
  const ObjectNumber number = rig.Acquire(kMiB)->number;
  const std::string path = DataStore::PathIn(rig.directory + "/data", number);
  for (const bool is_cut_off : {false, true}) {
    rig.Execute(wire::FilledCommand{rig.live, {0, kMiB}});
    rig.cache->Sync();
    rig.cache.reset();
    if (is_cut_off) {
      std::filesystem::resize_file(path, 4096);
    } else {
      std::filesystem::remove(path);
    }
    rig.Open();
    EXPECT_EQ(rig.cache->Stat(number)->present_bytes, 0u);
    EXPECT_EQ(std::filesystem::file_size(path), kMiB);
    // Neither the next life nor the next boot believes what was in the old file.
    rig.Reopen("00000000-0000-4000-8000-00000000000" + std::to_string(2 + is_cut_off));
    EXPECT_EQ(rig.Acquire(kMiB)->number, number);
    EXPECT_FALSE(rig.IsPresent(number, {0, 4096}));
    auto read = StartRead(&rig, number, {0, 4096});
    rig.live = rig.AnswerOpen(kMiB);
    rig.Execute(wire::FilledCommand{rig.live, rig.NextRead()->range});
    EXPECT_TRUE(read->ended && read->ended->ok());
  }
}

TEST(CacheTest, AChangedObjectIsReplacedWhenNoMountUsesTheOldVersion) {
  CacheRig rig;
  const ObjectInfo object = *rig.Acquire(kMiB);
  auto read = StartRead(&rig, object.number, {0, 4096});
  const auto message = rig.NextRead();
  rig.Execute(wire::CreadCommand{rig.live, message->msg_id, ESTALE});
  EXPECT_EQ(read->ended->error(), EIO);
  rig.Reopen();
  EXPECT_TRUE(rig.Acquire(kMiB)->stale);
  const Result<ObjectInfo> fresh = rig.Acquire(2 * kMiB, /*replace_stale=*/true);
  ASSERT_TRUE(fresh.ok()) << fresh.status().message();
  EXPECT_NE(fresh->number, object.number);
  EXPECT_EQ(fresh->size_bytes, 2 * kMiB);
  EXPECT_EQ(rig.cache->DescribeObjects().size(), 1u);
}

TEST(CacheTest, TheFetchersAttrComesBackWithEveryOpen) {
  CacheRig rig;
  const ObjectInfo object = *rig.Acquire(kMiB);
  EXPECT_EQ(rig.Execute(wire::AttrCommand{rig.live, "etag=\"1\""}), 0);
  rig.Reopen();
  auto read = StartRead(&rig, object.number, {0, 4096});
  EXPECT_EQ(rig.NextOpen()->attr, "etag=\"1\"");
}

TEST(CacheTest, UnderPolicyFailReadsEndWithTheFetcherAndStartAgainWithTheNext) {
  CacheOptions options;
  options.fail_on_detach = true;
  CacheRig rig(options);
  const ObjectInfo object = *rig.Acquire(kMiB);
  auto pending = StartRead(&rig, object.number, {0, 4096});
  rig.cache->device().Detach();
  EXPECT_EQ(pending->ended->error(), EIO);
  auto refused = StartRead(&rig, object.number, {0, 4096});
  EXPECT_EQ(refused->ended->error(), EIO);
  ASSERT_TRUE(rig.cache->device().Attach().ok());
  auto served = StartRead(&rig, object.number, {0, 4096});
  EXPECT_FALSE(served->ended.has_value());
  rig.live = rig.AnswerOpen(kMiB);
  rig.Execute(wire::FilledCommand{rig.live, rig.NextRead()->range});
  EXPECT_TRUE(served->ended->ok());
}

TEST(CacheTest, AWithdrawnLookUpEndsAtOnceAndItsAnswerServesTheNext) {
  CacheRig rig;
  const ObjectNumber volume = *rig.cache->AddVolume("volume");
  std::optional<Status> ended;
  const auto ticket =
      rig.cache->Acquire({volume, "volume"}, "object", {}, Freshness::kKnown,
                         [&](const Result<ObjectInfo>& info) { ended = info.status(); });
  ASSERT_TRUE(ticket.has_value());
  EXPECT_TRUE(rig.cache->Withdraw(*ticket, Status(EINTR, "killed")));
  EXPECT_EQ(ended->error(), EINTR);
  EXPECT_FALSE(rig.cache->Withdraw(*ticket, Status(EINTR, "killed")));
  rig.AnswerOpen(kMiB);
  EXPECT_EQ(rig.Acquire(kMiB)->size_bytes, kMiB);
}

// Acquires objects "0", "1", ... of `size` each, all of it filled.
std::vector<ObjectNumber> AcquireMany(CacheRig* rig, size_t count, uint64_t size) {
  const ObjectNumber volume = *rig->cache->AddVolume("volume");
  std::vector<ObjectNumber> numbers;
  for (size_t i = 0; i < count; ++i) {
    rig->cache->Acquire({volume, "volume"}, std::to_string(i), {}, Freshness::kKnown,
                        [&](const Result<ObjectInfo>& info) { numbers.push_back(info->number); });
    std::optional<wire::OpenMessage> open;
    while (!open) open = rig->NextOpen();  // CLOSEs of those that left come first.
    EXPECT_EQ(rig->Execute(wire::CopenCommand{open->msg_id, static_cast<int64_t>(size), 0}), 0);
    EXPECT_EQ(rig->Execute(wire::FilledCommand{open->object_id, {0, size}}), 0);
  }
  return numbers;
}

size_t OpenDataFiles(const CacheRig& rig) {
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code error;
    const std::string target = std::filesystem::read_symlink(entry.path(), error).string();
    count += target.starts_with(rig.directory + "/data/") ? 1 : 0;
  }
  return count;
}

TEST(CacheTest, IdleObjectsLeaveMemoryAndComeBack) {
  CacheOptions options;
  options.max_objects = 16;
  CacheRig rig(options);
  const std::vector<ObjectNumber> all = AcquireMany(&rig, 100, 8192);
  rig.data_fd.Reset();
  rig.cache->Sync();
  for (int round = 0; round < 2; ++round) {
    for (const ObjectNumber number : all) EXPECT_TRUE(rig.IsPresent(number, {0, 8192}));
    EXPECT_LE(OpenDataFiles(rig), 16u);
  }
  rig.Reopen();
  for (const ObjectNumber number : all) EXPECT_TRUE(rig.IsPresent(number, {0, 8192}));
}

TEST(CacheTest, PresentBytesAreReadThoughNoDescriptorIsLeft) {
  CacheRig rig;
  const std::vector<ObjectNumber> all = AcquireMany(&rig, 8, 8192);
  rig.data_fd.Reset();
  rig.cache->Sync();
  rig.Reopen();
  for (size_t i = 0; i < 4; ++i) EXPECT_TRUE(rig.IsPresent(all[i], {0, 8192}));
  std::vector<UniqueFd> taken;
  while (true) {
    UniqueFd fd(dup(0));
    if (!fd.valid()) break;
    taken.push_back(std::move(fd));
  }
  for (const ObjectNumber number : all) EXPECT_TRUE(rig.IsPresent(number, {0, 8192}));
}

TEST(CacheTest, AReadThatWaitsWhileItsDigestBecomesKnownIsChecked) {
  CacheRig rig;
  const ObjectInfo object = *rig.Acquire(kMiB);
  std::optional<bool> checked;
  rig.cache->Read(object.number, {0, 4096}, [&](const Status&, const FileSlice& slice) {
    checked = slice.verity != nullptr;
  });
  (void)rig.NextRead();
  EXPECT_EQ(rig.Execute(wire::VerityCommand{rig.live, Digest{1, 2, 3}}), 0);
  EXPECT_EQ(rig.Execute(wire::FilledCommand{rig.live, {0, 65536}}), 0);
  EXPECT_EQ(checked, true);
}

TEST(CacheTest, NoPacketOfCommandsUsesUpTheIds) {
  constexpr uint64_t kRead = kMiB;
  constexpr uint64_t kReads = 128;  // They need more ids than two refills leave.
  CacheOptions options;
  options.msg_id_block = 8192;
  options.engine.fetch_size = 4096;
  CacheRig rig(options);
  const ObjectInfo object = *rig.Acquire(kReads * kRead);
  std::vector<Result<wire::Command>> fills, refusals, first_holes;
  for (uint64_t at = 4096; at < kReads * kRead; at += 8192) {  // Every second block.
    fills.emplace_back(wire::FilledCommand{rig.live, {at, at + 4096}});
  }
  rig.cache->device().Execute(fills);
  std::vector<ReadTicket> waiting;
  for (uint64_t i = 0; i < kReads; ++i) {
    waiting.push_back(rig.cache->Read(object.number, ByteRange::At(i * kRead, kRead),
                                      [](const Status&, const FileSlice&) {}));
    first_holes.emplace_back(wire::FilledCommand{rig.live, ByteRange::At(i * kRead, 4096)});
  }
  while (const auto read = rig.NextRead()) {  // The later holes fail: no read waits for them first.
    if (read->range.begin % kRead != 0) {
      refusals.emplace_back(wire::CreadCommand{rig.live, read->msg_id, EIO});
    }
  }
  rig.cache->device().Execute(refusals);
  const size_t before = rig.cache->counters().requests;
  for (const int32_t result : rig.cache->device().Execute(first_holes)) EXPECT_EQ(result, 0);
  EXPECT_EQ(rig.cache->counters().requests - before, kReads * (kRead / 8192 - 1));
}

TEST(CacheTest, BadNamesAreRefused) {
  CacheRig rig;
  EXPECT_EQ(rig.cache->AddVolume("").status().error(), EINVAL);
  EXPECT_EQ(rig.cache->AddVolume("a/b").status().error(), EINVAL);
  EXPECT_EQ(rig.cache->AddVolume("..").status().error(), EINVAL);
  EXPECT_EQ(rig.cache->AddVolume("=17").status().error(), EINVAL);
  EXPECT_EQ(rig.cache->AddVolume(std::string(256, 'x')).status().error(), EINVAL);
}

class ReserveCountingStore : public ForwardingStore {
 public:
  ReserveCountingStore(std::unique_ptr<MetadataStore> store, int* reserved)
      : ForwardingStore(std::move(store)), reserved_(reserved) {}
  Result<uint64_t> Reserve(Counter counter, uint64_t count) override {
    ++*reserved_;
    return ForwardingStore::Reserve(counter, count);
  }

 private:
  int* const reserved_;
};

TEST(CacheTest, AReadOfPresentBytesReservesNoIds) {
  CacheOptions options;
  options.msg_id_block = 8;  // More are reserved when fewer than 4 are left.
  CacheRig rig(options);
  const ObjectNumber number = rig.Acquire(64 * kMiB)->number;
  ASSERT_EQ(rig.Execute(wire::FilledCommand{rig.live, {0, kMiB}}), 0);
  int reserved = 0;
  rig.wrap_store = [&](std::unique_ptr<MetadataStore> store) {
    return std::make_unique<ReserveCountingStore>(std::move(store), &reserved);
  };
  rig.Reopen();
  const auto miss = [&](uint64_t mib) {
    rig.cache->Read(number, {mib * kMiB, mib * kMiB + 4096},
                    [](const Status&, const FileSlice&) {});
  };
  for (uint64_t mib = 1; mib <= 5; ++mib) miss(mib);
  const int before = reserved;
  EXPECT_TRUE(rig.IsPresent(number, {0, 4096}));
  EXPECT_EQ(reserved, before);
  miss(6);
  EXPECT_EQ(reserved, before + 1);
}

TEST(CacheTest, ASequentialReaderOfPresentBytesIsFetchedAhead) {
  CacheRig rig({}, /*read_ahead_max=*/8 * kMiB);
  const ObjectNumber number = rig.Acquire(64 * kMiB)->number;
  ASSERT_EQ(rig.Execute(wire::FilledCommand{rig.live, {0, kMiB}}), 0);
  for (uint64_t at = 0; at < kMiB; at += 128 << 10) {
    ASSERT_TRUE(rig.IsPresent(number, ByteRange::At(at, 128 << 10)));
  }
  const auto ahead = rig.NextRead();
  ASSERT_TRUE(ahead.has_value());
  EXPECT_EQ(ahead->range.begin, kMiB);
}

}  // namespace
}  // namespace cachecore
