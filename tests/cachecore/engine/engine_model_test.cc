// Random operations on an Engine, with its invariants checked after every step.

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/cachecore/engine/engine_rig.h"
#include "tests/cachecore/engine/seed.h"

namespace cachecore {
namespace {

constexpr uint64_t kSize = 64 * 4096 + 1000;
constexpr size_t kObjects = 4;

class Model {
 public:
  Model(uint64_t seed, bool exact) : random_(seed), rig_(Options(exact)) {
    for (size_t i = 0; i < kObjects; ++i) AddObject();
  }

  void Step() {
    const int roll = Below(100);
    if (roll < 25) {
      Read();
    } else if (roll < 45) {
      Deliver();
    } else if (roll < 60) {
      FillSomething();
    } else if (roll < 72) {
      AnswerSomething();
    } else if (roll < 80) {
      WithdrawSomething();
    } else if (roll < 84) {
      rig_.Restore();
    } else if (roll < 87) {
      CloseSomething();
    } else if (roll < 90) {
      rig_.Advance(std::chrono::milliseconds(Below(500)));
    } else if (roll < 91) {
      BringSomethingThrough();
    } else if (roll < 92) {
      Reattach(/*fail=*/Below(4) == 0);
    } else if (roll < 93) {
      DropSomething();
    } else if (roll < 96) {
      CullSomething();
    } else {
      rig_.hold_journal = Below(2) == 0;  // Journaling takes its time.
      rig_.Run({});
    }
    Check();
  }

  // Whatever has happened, letting go of everything ends every read once.
  void End() {
    rig_.hold_journal = false;
    rig_.Run({});
    Reattach(/*fail=*/true);
    EXPECT_EQ(rig_.engine.requests().size(), 0u);
    for (const auto& read : rig_.reads) EXPECT_EQ(read.times_ended, 1);
  }

 private:
  struct Delivered {
    MsgId id;
    ObjectId object;
    bool open;
    uint64_t generation;
  };

  static EngineOptions Options(bool exact) {
    EngineOptions options;
    options.exact = exact;
    options.fetch_size = 16384;
    options.max_fetch = 32768;
    options.read_ahead_max = 65536;
    return options;
  }

  int Below(int bound) { return std::uniform_int_distribution<>(0, bound - 1)(random_); }
  Object* Pick() {
    return rig_.engine.Find(ObjectNumber{numbers_[static_cast<size_t>(Below(kObjects))]});
  }
  template <typename List>
  auto& PickFrom(List& list) {
    return list[static_cast<size_t>(Below(static_cast<int>(list.size())))];
  }

  void AddObject() {
    numbers_.push_back(next_number_++);
    rig_.AddKnown(numbers_.back(), kSize);
    present_.emplace(numbers_.back(), kSize);
  }
  ByteRange SomeRange() {
    const uint64_t begin = static_cast<uint64_t>(Below(static_cast<int>(kSize - 1)));
    const uint64_t length = 1 + static_cast<uint64_t>(Below(40000));
    return {begin / 4096 * 4096, std::min(kSize, begin + length)};
  }

  void Read() {
    Object* object = Pick();
    const ByteRange range = SomeRange();
    if (object->presence.Covers(range)) return;
    rig_.Read(object, range, Below(3) == 0 ? std::chrono::milliseconds(300) : Duration::zero());
  }

  void Deliver() {
    const auto delivery = rig_.Select();
    if (!delivery) return;
    if (const auto* open = std::get_if<wire::OpenMessage>(&delivery->message)) {
      delivered_.push_back({open->msg_id, open->object_id, true, rig_.generation});
    } else if (const auto* read = std::get_if<wire::ReadMessage>(&delivery->message)) {
      // A READ goes out only while its object is open, under the id it is open by (X6).
      EXPECT_EQ(delivery->object->state, ObjectState::kOpen);
      EXPECT_EQ(delivery->object->live_id, read->object_id);
      const auto& culling = delivery->object->culling;
      EXPECT_FALSE(culling && culling->range.Overlaps(read->range));
      delivered_.push_back({read->msg_id, read->object_id, false, rig_.generation});
    }
  }

  void FillSomething() {
    Object* object = Pick();
    if (object->state != ObjectState::kOpen) return;
    const ByteRange range = SomeRange();
    const ByteRange culled = object->culling ? object->culling->range : ByteRange{};
    if (range.Overlaps(culled)) {
      present_.at(object->number.value).Add({range.begin, std::max(range.begin, culled.begin)});
      present_.at(object->number.value).Add({std::min(range.end, culled.end), range.end});
    } else {
      present_.at(object->number.value).Add(range);
    }
    rig_.Fill(object, range);
  }

  // Answers a message that was once delivered, rightly or wrongly, now or long ago.
  void AnswerSomething() {
    if (delivered_.empty()) return;
    const Delivered& old = PickFrom(delivered_);
    const bool lie = Below(4) == 0;
    const bool as_open = lie ? Below(2) == 0 : old.open;
    const ObjectId object = lie ? PickFrom(delivered_).object : old.object;
    const Request* request = rig_.engine.FindRequest(old.id);
    const bool pending = request != nullptr;
    const bool is_open = pending && request->opcode == wire::Opcode::kOpen;
    const Object* live = rig_.engine.FindLive(object);
    int answer;
    bool may_answer;
    if (as_open) {
      may_answer = is_open && request->delivered.value == rig_.generation &&
                   !rig_.engine.requests().IsNew(old.id);
      const int64_t sizes[] = {static_cast<int64_t>(kSize), -EIO, 1};
      answer = rig_.Copen(old.id, sizes[Below(10) < 8 ? 0 : 1 + Below(2)]);
      if (answer == -ESTALE) answer = 0;  // Carried out; the size was the lie.
    } else {
      may_answer = pending && !is_open && live != nullptr && live->number == request->object;
      answer = rig_.Cread(object, old.id, Below(3) == 0 ? EIO : 0);
    }
    EXPECT_EQ(answer, may_answer ? 0 : -EINVAL);
    if (answer == 0) {
      // Never findable again by any caller (I1, I2).
      EXPECT_EQ(rig_.engine.FindRequest(old.id), nullptr);
      EXPECT_EQ(as_open ? rig_.Copen(old.id, kSize) : rig_.Cread(object, old.id), -EINVAL);
    }
  }

  // What a READ was about, for those who wait now; said to be so of a full disk, or not.
  void BringSomethingThrough() {
    for (int i = 0; i < 8 && !delivered_.empty(); ++i) {
      const Delivered& old = PickFrom(delivered_);
      const Request* request = rig_.engine.FindRequest(old.id);
      const Object* live = rig_.engine.FindLive(old.object);
      const bool full = Below(4) != 0 || (live != nullptr && live->full);
      if (live != nullptr && full) {
        EXPECT_EQ(rig_.Full(old.object), 0);
      }
      request = rig_.engine.FindRequest(old.id);  // If it was read-ahead, it has ended.
      const bool may = full && live != nullptr && request != nullptr && !old.open &&
                       live->number == request->object;
      const ByteRange range = request != nullptr ? request->range : ByteRange{0, 4096};
      EXPECT_EQ(rig_.Through(old.object, old.id, range), may ? 0 : -EINVAL);
      if (may) {
        EXPECT_EQ(rig_.engine.FindRequest(old.id), nullptr);
      }
      Check();
    }
  }

  void CullSomething() {
    Object* object = Pick();
    PresenceMap& present = present_.at(object->number.value);
    if (!object->culling) {
      ByteRange range = SomeRange();
      range.end = std::min(kSize, (range.end + 4095) / 4096 * 4096);
      bool is_used = false;
      for (const auto& [position, read] : object->waiting) {
        is_used = is_used || read->range.Overlaps(range);
      }
      for (const auto& [begin, id] : object->in_flight) {
        is_used = is_used || rig_.engine.FindRequest(id)->range.Overlaps(range);
      }
      EXPECT_EQ(rig_.BeginCull(object, range), !is_used);
      if (!is_used) present.Remove(range);
    } else if (Below(2) == 0) {
      for (const ByteRange part : object->culling->present) present.Add(part);
      rig_.CancelCull(object);
    } else {
      rig_.EndCull(object);
    }
  }

  void WithdrawSomething() {
    if (rig_.reads.empty()) return;
    auto& read = PickFrom(rig_.reads);
    const bool waiting = read.times_ended == 0;
    EXPECT_EQ(rig_.Withdraw(read.ticket), waiting);
    EXPECT_EQ(read.times_ended, 1);
  }

  void CloseSomething() {
    if (!delivered_.empty()) rig_.Close(PickFrom(delivered_).object);
  }

  void Reattach(bool fail) {
    rig_.Reattach(fail);
    for (const auto& read : rig_.reads) {
      if (fail) {
        EXPECT_EQ(read.times_ended, 1);
      }
    }
    if (Below(2) == 0) rig_.Restore();
  }

  void DropSomething() {
    const size_t slot = static_cast<size_t>(Below(kObjects));
    const ObjectNumber number{numbers_[slot]};
    rig_.Drop(rig_.engine.Find(number));
    for (const auto& read : rig_.reads) {
      if (read.object == number) {
        EXPECT_EQ(read.times_ended, 1);  // I14.
      }
    }
    AddObject();
    numbers_[slot] = numbers_.back();
    numbers_.pop_back();
  }

  void Check() {
    rig_.engine.CheckInvariants();
    for (; checked_ids_ < rig_.created_ids.size(); ++checked_ids_) {  // Ids never recur (I16).
      EXPECT_TRUE(ids_.insert(rig_.created_ids[checked_ids_]).second);
    }
    // Presence shrinks by a cull alone (X7).
    for (const auto& [number, object] : rig_.engine.objects()) {
      EXPECT_EQ(object->presence.present_bytes(), present_.at(number.value).present_bytes());
    }
    for (; checked_reads_ < rig_.reads.size(); ++checked_reads_) {
      waiting_.push_back(&rig_.reads[checked_reads_]);
    }
    std::erase_if(waiting_, [&](const EngineRig::ReadState* read) {
      EXPECT_LE(read->times_ended, 1);
      if (read->times_ended == 1 && read->status.ok()) {
        for (const ByteRange gap : present_.at(read->object.value).Gaps(read->range)) {
          uint64_t through = 0;
          for (const ThroughPart& part : read->through) through += gap.Intersect(part.range).size();
          EXPECT_GE(through, gap.size());
        }
      }
      return read->times_ended == 1;
    });
    if (delivered_.size() > 100) delivered_.erase(delivered_.begin(), delivered_.begin() + 50);
  }

  std::mt19937_64 random_;
  EngineRig rig_;
  uint64_t next_number_ = 16;
  std::vector<uint64_t> numbers_;
  std::map<uint64_t, PresenceMap> present_;
  std::vector<Delivered> delivered_;
  std::set<MsgId> ids_;
  size_t checked_ids_ = 0;
  std::vector<const EngineRig::ReadState*> waiting_;
  size_t checked_reads_ = 0;
};

TEST(EngineModelTest, InvariantsHoldAfterEveryRandomStep) {
  const uint64_t seed = TestSeed();
  SCOPED_TRACE("HOLDFAST_SEED=" + std::to_string(seed));
  for (uint64_t round = 0; round < 300 && !testing::Test::HasFailure(); ++round) {
    Model model(seed + round, round % 2 == 1);
    for (int step = 0; step < 2000 && !testing::Test::HasFailure(); ++step) model.Step();
    model.End();
  }
}

}  // namespace
}  // namespace cachecore
