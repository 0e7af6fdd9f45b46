#include "fetcher/engine/fetch_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "tests/cachecore/engine/seed.h"

namespace fetcher {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kBlock = FetchQueue::kBlock;

class FetchQueueTest : public testing::Test {
 protected:
  void Add(uint32_t id, ByteRange range) {
    queue_.Add({id}, range, order_, order_);
    ++order_;
  }
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

TEST_F(FetchQueueTest, WhatIsAskedForIsSharedAmongAllConnections) {
  Add(1, {0, 8 * kMiB});
  for (uint64_t i = 0; i < 4; ++i) {
    EXPECT_EQ(Take(16 * kMiB, 4), ByteRange::At(2 * i * kMiB, 2 * kMiB));
  }
  // A reader's window moves on while three of them are still busy.
  queue_.Arrived({0, 2 * kMiB});
  Add(2, {8 * kMiB, 24 * kMiB});
  EXPECT_EQ(Take(16 * kMiB, 4), (ByteRange{8 * kMiB, 14 * kMiB}));
}

TEST_F(FetchQueueTest, NoneTakesMoreThanItsShareOfWhatIsLongerThanAPiece) {
  Add(1, {0, 20 * kMiB});
  Add(2, {100 * kMiB, 112 * kMiB});
  EXPECT_EQ(Take(16 * kMiB, 16), (ByteRange{0, 2 * kMiB}));
}

TEST_F(FetchQueueTest, SmallPiecesAreNotSplit) {
  Add(1, {0, kMiB + kBlock});
  EXPECT_EQ(Take(16 * kMiB, 4), (ByteRange{0, kMiB + kBlock}));
}

TEST_F(FetchQueueTest, ForOneConnectionNothingIsSplit) {
  Add(1, {0, 8 * kMiB});
  Add(2, {20 * kMiB, 28 * kMiB});
  EXPECT_EQ(Take(16 * kMiB, 1), (ByteRange{0, 8 * kMiB}));
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

TEST_F(FetchQueueTest, ARemovedReadIsNotWantedAnyMore) {
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

TEST_F(FetchQueueTest, WaitingNamesTheReadsThatNoOriginServes) {
  Add(1, {0, kMiB});
  Take();
  Add(2, {8 * kMiB, 9 * kMiB});
  EXPECT_THAT(queue_.Waiting(), ElementsAre(MsgId{2}));
  EXPECT_THAT(queue_.Missing({0, kMiB}), ElementsAre(MsgId{1}));
  Take();
  EXPECT_THAT(queue_.Waiting(), IsEmpty());
}

// Which reader misses what and what is in flight, kept per block, with the queue driven beside it.
class FetchQueueModelTest : public FetchQueueTest {
 protected:
  static constexpr uint64_t kBlocks = 64;

  uint64_t Below(uint64_t limit) { return random_() % limit; }

  void AddOne() {
    if (missing_.size() > 20) return;
    const uint64_t begin = Below(kBlocks);
    const uint64_t end = begin + 1 + Below(kBlocks - begin);
    Add(next_id_, {begin * kBlock, end * kBlock});
    std::vector<bool>& blocks = missing_[next_id_++];
    blocks.resize(kBlocks);
    for (uint64_t b = begin; b < end; ++b) blocks[b] = true;
  }

  void TakeOne() {
    if (!queue_.NextOrder()) return;
    const ByteRange piece = Take((1 + Below(8)) * kBlock, 1);
    for (const ByteRange other : pieces_) ASSERT_FALSE(piece.Overlaps(other));
    pieces_.push_back(piece);
  }

  void LetSomeArrive() {
    if (pieces_.empty()) return;
    const auto piece = pieces_.begin() + static_cast<int64_t>(Below(pieces_.size()));
    const uint64_t blocks = 1 + Below(piece->size() / kBlock);
    const ByteRange got{piece->begin, piece->begin + blocks * kBlock};
    std::vector<uint32_t> expected;
    for (auto& [id, misses] : missing_) {
      const auto first = misses.begin() + static_cast<int64_t>(got.begin / kBlock);
      std::fill(first, first + static_cast<int64_t>(blocks), false);
      if (std::count(misses.begin(), misses.end(), true) == 0) expected.push_back(id);
    }
    for (const uint32_t id : expected) missing_.erase(id);
    std::vector<uint32_t> ended;
    for (const MsgId id : queue_.Arrived(got)) ended.push_back(id.value);
    std::sort(ended.begin(), ended.end());
    ASSERT_EQ(ended, expected);
    finished_ += ended.size();
    piece->begin = got.end;
    if (piece->empty()) pieces_.erase(piece);
  }

  void ReturnOne() {
    if (pieces_.empty()) return;
    queue_.Return(pieces_.back());
    pieces_.pop_back();
  }

  void RemoveOne() {
    if (missing_.empty()) return;
    queue_.Remove({missing_.begin()->first});
    missing_.erase(missing_.begin());
  }

  // Whether a byte that a reader misses is in flight nowhere.
  bool SomethingIsWanted() const {
    std::vector<bool> in_flight(kBlocks);
    for (const ByteRange piece : pieces_) {
      for (uint64_t b = piece.begin / kBlock; b < piece.end / kBlock; ++b) in_flight[b] = true;
    }
    for (const auto& [id, misses] : missing_) {
      for (uint64_t b = 0; b < kBlocks; ++b) {
        if (misses[b] && !in_flight[b]) return true;
      }
    }
    return false;
  }

  std::mt19937_64 random_{TestSeed()};
  std::map<uint32_t, std::vector<bool>> missing_;  // Live READs.
  std::vector<ByteRange> pieces_;
  uint32_t next_id_ = 0;
  uint64_t finished_ = 0;
};

TEST_F(FetchQueueModelTest, EveryReadEndsOnceAllItsBytesHaveComeAndNoByteIsInFlightTwice) {
  for (int step = 0; step < 200'000; ++step) {
    SCOPED_TRACE(step);
    switch (Below(12)) {
      case 0 ... 3:
        AddOne();
        break;
      case 4 ... 5:
        TakeOne();
        break;
      case 6 ... 9:
        LetSomeArrive();
        break;
      case 10:
        ReturnOne();
        break;
      default:
        RemoveOne();
    }
    ASSERT_EQ(queue_.NextOrder().has_value(), SomethingIsWanted());
    ASSERT_EQ(queue_.empty(), missing_.empty());
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(finished_, 1000u);
}

}  // namespace
}  // namespace fetcher
