// Bytes that a data file could not take: served to those who wait, and nothing else.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <filesystem>

#include "tests/cachecore/cache/cache_rig.h"
#include "tests/cachecore/verity/built_tree.h"

namespace cachecore {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kPage = 64 << 10;
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;

struct Waiting {
  std::optional<Status> ended;
  FileSlice slice;
  ReadTicket ticket;
};

std::unique_ptr<Waiting> StartRead(CacheRig* rig, ObjectNumber number, ByteRange range) {
  auto waiting = std::make_unique<Waiting>();
  waiting->ticket = rig->cache->Read(
      number, range, [raw = waiting.get()](const Status& status, const FileSlice& slice) {
        raw->ended = status;
        raw->slice = slice;
      });
  return waiting;
}

UniqueFd Memory(uint64_t offset, const std::string& bytes, int seals = kSeals) {
  UniqueFd file(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_EQ(pwrite(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)),
            static_cast<ssize_t>(bytes.size()));
  EXPECT_EQ(fcntl(file.get(), F_ADD_SEALS, seals), 0);
  return file;
}

std::string Assembled(CacheRig* rig, const FileSlice& slice) {
  std::string bytes(slice.range.size(), '\0');
  const Status status =
      rig->cache->ReadAssembled(slice, {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()});
  return status.ok() ? bytes : status.message();
}

uint64_t PresentBytes(CacheRig* rig, const ObjectInfo& object) {
  return rig->cache->Stat(object.number)->present_bytes;
}

TEST(CacheThroughTest, AReadIsAnsweredAndNothingBecomesPresent) {
  CacheRig rig;
  const ObjectInfo object = *rig.Acquire(kMiB);
  const auto read = StartRead(&rig, object.number, {4096, 8192});
  const auto message = rig.NextRead();
  ASSERT_TRUE(message.has_value());
  EXPECT_EQ(rig.Execute(wire::FullCommand{rig.live}), 0);
  const wire::ThroughCommand through{rig.live, message->msg_id, message->range};
  EXPECT_EQ(rig.cache->device().Through(through, Memory(0, std::string(kPage, 'x'))), 0);
  ASSERT_TRUE(read->ended && read->ended->ok());
  EXPECT_EQ(Assembled(&rig, read->slice), std::string(4096, 'x'));
  EXPECT_EQ(PresentBytes(&rig, object), 0u);
  EXPECT_TRUE(rig.cache->DescribeRequests().empty());
  EXPECT_EQ(rig.cache->counters().bytes_through, kPage);
  // The next one asks again, also in the next life; with room it is kept.
  rig.Reopen();
  const auto again = StartRead(&rig, object.number, {4096, 8192});
  rig.live = rig.AnswerOpen(kMiB);
  ASSERT_TRUE(rig.NextRead().has_value());
  rig.Write({0, kPage}, 'x');
  EXPECT_EQ(rig.Execute(wire::FilledCommand{rig.live, {0, kPage}}), 0);
  EXPECT_TRUE(again->ended && again->ended->ok());
  EXPECT_TRUE(again->slice.through.empty());
  EXPECT_EQ(PresentBytes(&rig, object), kPage);
}

TEST(CacheThroughTest, AReadIsPutTogetherFromTheDiskAndOfSeveralReads) {
  CacheRig rig;
  const ObjectInfo object = *rig.Acquire(kMiB);
  rig.Write({kPage, 2 * kPage}, 'd');
  EXPECT_EQ(rig.Execute(wire::FilledCommand{rig.live, {kPage, 2 * kPage}}), 0);
  const auto read = StartRead(&rig, object.number, {4096, 3 * kPage - 4096});
  const auto before = rig.NextRead();
  const auto behind = rig.NextRead();
  ASSERT_TRUE(before && behind);
  EXPECT_EQ(rig.Execute(wire::FullCommand{rig.live}), 0);
  const auto bring = [&](const wire::ReadMessage& message, char byte) {
    return rig.cache->device().Through({rig.live, message.msg_id, message.range},
                                       Memory(message.range.begin, std::string(kPage, byte)));
  };
  EXPECT_EQ(bring(*behind, 'c'), 0);
  EXPECT_FALSE(read->ended.has_value());
  EXPECT_EQ(bring(*before, 'a'), 0);
  ASSERT_TRUE(read->ended && read->ended->ok());
  EXPECT_EQ(Assembled(&rig, read->slice), std::string(kPage - 4096, 'a') + std::string(kPage, 'd') +
                                              std::string(kPage - 4096, 'c'));
}

TEST(CacheThroughTest, AMistakenCommandIsRefusedAndChangesNothing) {
  CacheRig rig;
  const ObjectInfo object = *rig.Acquire(kMiB);
  const auto read = StartRead(&rig, object.number, {0, 4096});
  const auto message = rig.NextRead();
  ASSERT_TRUE(message.has_value());
  const wire::ThroughCommand right{rig.live, message->msg_id, message->range};
  const std::string bytes(kPage, 'x');
  EXPECT_EQ(rig.cache->device().Through(right, Memory(0, bytes)),
            -EINVAL);  // The disk is not full.
  EXPECT_EQ(rig.Execute(wire::FullCommand{ObjectId{rig.live.value + 1}}), -EINVAL);
  EXPECT_EQ(rig.Execute(wire::FullCommand{rig.live}), 0);
  rig.Write({kPage, 2 * kPage}, 'd');
  EXPECT_EQ(rig.Execute(wire::FilledCommand{rig.live, {kPage, 2 * kPage}}), 0);
  EXPECT_EQ(rig.cache->device().Through(right, Memory(0, bytes)), -EINVAL);  // Nor now any more.
  EXPECT_EQ(rig.Execute(wire::FullCommand{rig.live}), 0);

  wire::ThroughCommand wrong = right;
  wrong.object_id.value += 1;
  EXPECT_EQ(rig.cache->device().Through(wrong, Memory(0, bytes)), -EINVAL);
  wrong = right;
  wrong.msg_id.value += 1;
  EXPECT_EQ(rig.cache->device().Through(wrong, Memory(0, bytes)), -EINVAL);
  for (const ByteRange range : {ByteRange{0, 4096}, ByteRange{0, 2 * kPage}, ByteRange{4096, kPage},
                                ByteRange{kMiB, kMiB + kPage}}) {
    EXPECT_EQ(rig.cache->device().Through({rig.live, message->msg_id, range}, Memory(0, bytes)),
              -EINVAL);
  }
  EXPECT_EQ(rig.cache->device().Through(right, UniqueFd()), -EINVAL);
  for (const int seals : {0, F_SEAL_WRITE, F_SEAL_SHRINK | F_SEAL_WRITE, F_SEAL_SHRINK}) {
    EXPECT_EQ(rig.cache->device().Through(right, Memory(0, bytes, seals)), -EINVAL) << seals;
  }
  EXPECT_EQ(rig.cache->device().Through(right, Memory(0, bytes.substr(1))), -EINVAL);  // Short.
  EXPECT_EQ(rig.cache->device().Through(right, Memory(4096, bytes)), -EINVAL);         // A hole.
  EXPECT_EQ(rig.cache->device().Through(right, UniqueFd(open("/dev/zero", O_RDONLY))), -EINVAL);
  EXPECT_EQ(rig.cache->device().Through(right, UniqueFd(open("/", O_RDONLY | O_DIRECTORY))),
            -EINVAL);

  EXPECT_FALSE(read->ended.has_value());
  EXPECT_EQ(rig.cache->counters().bytes_through, 0u);
  EXPECT_EQ(rig.cache->device().Through(right, Memory(0, bytes)), 0);
  EXPECT_TRUE(read->ended && read->ended->ok());
  EXPECT_EQ(rig.cache->device().Through(right, Memory(0, bytes)), -EINVAL);  // It has ended.
}

TEST(CacheThroughTest, BytesWithADigestAreCheckedBeforeAReaderGetsThem) {
  std::mt19937_64 random(3);
  const std::string data = RandomBytes(kMiB, &random);
  const BuiltTree built = BuildOf(data);
  const VerityLayout layout(kMiB);
  CacheRig rig;
  const ObjectInfo object = *rig.Acquire(kMiB);
  EXPECT_EQ(rig.Execute(wire::VerityCommand{rig.live, built.digest}), 0);
  const auto read = StartRead(&rig, object.number, {4097, 9000});
  const auto message = rig.NextRead();
  ASSERT_TRUE(message.has_value());
  EXPECT_EQ(rig.Execute(wire::FullCommand{rig.live}), 0);
  const wire::ThroughCommand through{rig.live, message->msg_id, message->range};
  const auto memory = [&](std::string bytes, const std::string& tree) {
    UniqueFd file = Memory(0, bytes.substr(0, kPage), 0);
    EXPECT_EQ(
        pwrite(file.get(), tree.data(), tree.size(), static_cast<off_t>(layout.tail_offset())),
        static_cast<ssize_t>(tree.size()));
    EXPECT_EQ(fcntl(file.get(), F_ADD_SEALS, kSeals), 0);
    return file;
  };
  std::string flipped = data;
  flipped[5000] = static_cast<char>(flipped[5000] ^ 1);
  std::string bad_tree = built.tree;
  bad_tree[kVerityBlock] = static_cast<char>(bad_tree[kVerityBlock] ^ 1);  // The first leaf.
  EXPECT_EQ(rig.cache->device().Through(through, Memory(0, data.substr(0, kPage))),
            -EINVAL);  // No tree.
  EXPECT_EQ(rig.cache->device().Through(through, memory(data, bad_tree)), -EINVAL);
  EXPECT_EQ(rig.cache->device().Through(through, memory(flipped, built.tree)), -EINVAL);
  EXPECT_FALSE(read->ended.has_value());
  EXPECT_EQ(rig.cache->counters().bytes_found_wrong, 0u);
  EXPECT_EQ(rig.cache->device().Through(through, memory(data, built.tree)), 0);
  ASSERT_TRUE(read->ended && read->ended->ok());
  EXPECT_EQ(Assembled(&rig, read->slice), data.substr(4097, 9000 - 4097));
  EXPECT_EQ(PresentBytes(&rig, object), 0u);
}

TEST(CacheThroughTest, OneThatWaitsForTheRestGoesOnIfThatCanBeKept) {
  CacheRig rig;
  const ObjectInfo object = *rig.Acquire(kMiB);
  const auto first = StartRead(&rig, object.number, {0, kPage});
  const auto both = StartRead(&rig, object.number, {0, 2 * kPage});
  const auto message = rig.NextRead();
  ASSERT_TRUE(message.has_value());
  EXPECT_EQ(rig.Execute(wire::FullCommand{rig.live}), 0);
  EXPECT_EQ(rig.cache->device().Through({rig.live, message->msg_id, message->range},
                                        Memory(0, std::string(kPage, 'x'))),
            0);
  EXPECT_TRUE(first->ended && first->ended->ok());
  EXPECT_FALSE(both->ended.has_value());
  rig.Write({kPage, 2 * kPage}, 'd');
  EXPECT_EQ(rig.Execute(wire::FilledCommand{rig.live, {kPage, 2 * kPage}}), 0);
  ASSERT_TRUE(both->ended && both->ended->ok());
  EXPECT_EQ(Assembled(&rig, both->slice), std::string(kPage, 'x') + std::string(kPage, 'd'));
}

}  // namespace
}  // namespace cachecore
