#include "fetcher/fetch_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "tests/cachecore/seed.h"

namespace fetcher {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kBlock = FetchQueue::kBlock;

class FetchQueueTest : public testing::Test {
 protected:
  void Add(uint32_t id, ByteRange range) { queue_.Add({id}, range, order_++); }
  ByteRange Take(uint64_t max = 16 * kMiB, uint32_t connections = 1) {
    return queue_.Take(max, connections);
  }

  FetchQueue queue_;
  uint64_t order_ = 0;
};

TEST_F(FetchQueueTest, ServesReadsInTheOrderInWhichTheyCame) {
  Add(1, {8 * kMiB, 9 * kMiB});
  Add(2, {0, kMiB});
  EXPECT_EQ(queue_.NextOrder(), 0u);
  EXPECT_EQ(Take(), (ByteRange{8 * kMiB, 9 * kMiB}));
  EXPECT_EQ(queue_.NextOrder(), 1u);
  EXPECT_EQ(Take(), (ByteRange{0, kMiB}));
  EXPECT_EQ(queue_.NextOrder(), std::nullopt);
}

TEST_F(FetchQueueTest, AdjacentReadsAreOnePieceUpToTheLimit) {
  Add(1, {0, 2 * kMiB});
  Add(2, {2 * kMiB, 4 * kMiB});
  EXPECT_EQ(Take(3 * kMiB), (ByteRange{0, 3 * kMiB}));
  EXPECT_EQ(Take(3 * kMiB), (ByteRange{3 * kMiB, 4 * kMiB}));
  EXPECT_THAT(queue_.Arrived({0, 3 * kMiB}), ElementsAre(MsgId{1}));
  EXPECT_THAT(queue_.Arrived({3 * kMiB, 4 * kMiB}), ElementsAre(MsgId{2}));
  EXPECT_TRUE(queue_.empty());
}

TEST_F(FetchQueueTest, OneBigPieceIsSplitOverIdleConnectionsWhenItIsAllThereIs) {
  Add(1, {0, 8 * kMiB});
  EXPECT_EQ(Take(16 * kMiB, 4), (ByteRange{0, 2 * kMiB}));
  EXPECT_EQ(Take(16 * kMiB, 3), (ByteRange{2 * kMiB, 4 * kMiB}));
}

TEST_F(FetchQueueTest, SmallPiecesAreNotSplit) {
  Add(1, {0, kMiB + kBlock});
  EXPECT_EQ(Take(16 * kMiB, 4), (ByteRange{0, kMiB + kBlock}));
}

TEST_F(FetchQueueTest, NothingIsSplitWhileOtherPiecesWait) {
  Add(1, {0, 8 * kMiB});
  Add(2, {20 * kMiB, 28 * kMiB});
  EXPECT_EQ(Take(16 * kMiB, 4), (ByteRange{0, 8 * kMiB}));
}

TEST_F(FetchQueueTest, PiecesAreCutAtBlocks) {
  Add(1, {100, 100 + 3 * kMiB});
  EXPECT_EQ(Take(2 * kMiB), (ByteRange{100, 2 * kMiB}));
}

TEST_F(FetchQueueTest, BytesInFlightAreNotTakenTwice) {
  Add(1, {0, kMiB});
  Take();
  Add(2, {kMiB / 2, 2 * kMiB});
  EXPECT_EQ(Take(), (ByteRange{kMiB, 2 * kMiB}));
  EXPECT_THAT(queue_.Arrived({0, kMiB}), ElementsAre(MsgId{1}));
  EXPECT_THAT(queue_.Arrived({kMiB, 2 * kMiB}), ElementsAre(MsgId{2}));
}

TEST_F(FetchQueueTest, WhatDoesNotComeIsWantedAgainBeforeLaterReads) {
  Add(1, {0, kMiB});
  Take();
  Add(2, {8 * kMiB, 9 * kMiB});
  queue_.Arrived({0, kMiB / 2});
  queue_.Return({kMiB / 2, kMiB});
  EXPECT_EQ(Take(), (ByteRange{kMiB / 2, kMiB}));
}

TEST_F(FetchQueueTest, ARemovedReadIsWantedByNobody) {
  Add(1, {0, kMiB});
  queue_.Remove({1});
  EXPECT_EQ(queue_.NextOrder(), std::nullopt);
  EXPECT_TRUE(queue_.empty());
}

TEST_F(FetchQueueTest, ARemovedReadLeavesWhatOthersMiss) {
  Add(1, {0, kMiB});
  Add(2, {kMiB / 2, kMiB});
  queue_.Remove({1});
  EXPECT_EQ(Take(), (ByteRange{kMiB / 2, kMiB}));
}

TEST_F(FetchQueueTest, WhatComesBackForARemovedReadIsDropped) {
  Add(1, {0, kMiB});
  Take();
  queue_.Remove({1});
  queue_.Return({0, kMiB});
  EXPECT_EQ(queue_.NextOrder(), std::nullopt);
}

TEST_F(FetchQueueTest, AReadThatIsDeliveredTwiceIsInLineOnce) {
  Add(1, {0, kMiB});
  Add(1, {0, kMiB});
  Take();
  EXPECT_EQ(queue_.NextOrder(), std::nullopt);
  EXPECT_THAT(queue_.Arrived({0, kMiB}), ElementsAre(MsgId{1}));
  EXPECT_TRUE(queue_.empty());
}

TEST_F(FetchQueueTest, WaitingNamesThoseWhomNobodyServes) {
  Add(1, {0, kMiB});
  Take();
  Add(2, {8 * kMiB, 9 * kMiB});
  EXPECT_THAT(queue_.Waiting(), ElementsAre(MsgId{2}));
  EXPECT_THAT(queue_.Missing({0, kMiB}), ElementsAre(MsgId{1}));
  Take();
  EXPECT_THAT(queue_.Waiting(), IsEmpty());
}

// Random steps against a model that knows, per block, who misses it and whether it is in flight.
TEST_F(FetchQueueTest, EveryReadEndsOnceAllItsBytesHaveArrivedAndNoByteIsInFlightTwice) {
  constexpr uint64_t kBlocks = 64;
  std::mt19937_64 random(TestSeed());
  std::map<uint32_t, std::vector<bool>> missing;  // Live READs.
  std::vector<ByteRange> pieces;
  uint32_t next_id = 0;
  uint64_t finished = 0;
  for (int step = 0; step < 200'000; ++step) {
    const uint64_t pick = random();
    switch (random() % 6) {
      case 0:
      case 1: {
        if (missing.size() > 20) break;
        const uint64_t begin = random() % kBlocks;
        const uint64_t end = begin + 1 + random() % (kBlocks - begin);
        Add(next_id, {begin * kBlock, end * kBlock});
        std::vector<bool>& blocks = missing[next_id++];
        blocks.resize(kBlocks);
        std::fill(blocks.begin() + static_cast<int64_t>(begin),
                  blocks.begin() + static_cast<int64_t>(end), true);
        break;
      }
      case 2: {
        if (!queue_.NextOrder()) break;
        const ByteRange piece = Take((1 + random() % 8) * kBlock, 1);
        for (const ByteRange other : pieces) ASSERT_FALSE(piece.Overlaps(other)) << step;
        pieces.push_back(piece);
        break;
      }
      case 3:
      case 4: {
        if (pieces.empty()) break;
        ByteRange& piece = pieces[pick % pieces.size()];
        ByteRange got = piece;
        got.end = got.begin + (1 + random() % (piece.size() / kBlock)) * kBlock;
        std::vector<uint32_t> expected;
        for (auto it = missing.begin(); it != missing.end();) {
          bool touched = false;
          for (uint64_t b = got.begin / kBlock; b < got.end / kBlock; ++b) {
            touched |= it->second[b];
            it->second[b] = false;
          }
          const bool done = touched && std::count(it->second.begin(), it->second.end(), true) == 0;
          if (done) expected.push_back(it->first);
          it = done ? missing.erase(it) : std::next(it);
        }
        std::vector<uint32_t> ended;
        for (const MsgId id : queue_.Arrived(got)) ended.push_back(id.value);
        std::sort(ended.begin(), ended.end());
        ASSERT_EQ(ended, expected) << step;
        finished += ended.size();
        piece.begin = got.end;
        if (piece.empty())
          pieces.erase(pieces.begin() + static_cast<int64_t>(pick % pieces.size()));
        break;
      }
      default: {
        if (!pieces.empty() && pick % 4 == 0) {
          queue_.Return(pieces.back());
          pieces.pop_back();
        } else if (!missing.empty() && pick % 4 == 1) {
          queue_.Remove({missing.begin()->first});
          missing.erase(missing.begin());
        }
      }
    }
    // Whoever misses a byte that is not in flight is in line, and nobody else.
    bool wanted = false;
    for (const auto& [id, blocks] : missing) {
      for (uint64_t b = 0; b < kBlocks; ++b) {
        const auto in_flight = [b](ByteRange piece) { return piece.Contains(b * kBlock); };
        wanted |= blocks[b] && std::none_of(pieces.begin(), pieces.end(), in_flight);
      }
    }
    ASSERT_EQ(queue_.NextOrder().has_value(), wanted) << step;
    ASSERT_EQ(queue_.empty(), missing.empty()) << step;
  }
  EXPECT_GT(finished, 1000u);
}

}  // namespace
}  // namespace fetcher
