// GuardedEngine: in which order a Transaction's effects are carried out, and with which lock.

#include "cachecore/cache/guarded_engine.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/cachecore/cache/scripted_store.h"
#include "tests/cachecore/engine/engine_rig.h"

namespace cachecore {
namespace {

using Events = std::vector<std::string>;

class GuardedEngineTest : public testing::Test {
 protected:
  static constexpr ObjectNumber kNumber{16};
  static constexpr uint64_t kSize = 1 << 20;

  GuardedEngineTest() {
    EXPECT_TRUE(ids_.EnsureIds().ok());
    // A call that held the engine's lock would deadlock here.
    store_.on_commit = [this](const MetadataBatch& batch) {
      const MutexLock lock(&core_.mu);
      if (!batch.put_objects.empty()) events_.push_back("record");
      if (!batch.put_journal.empty()) events_.push_back("journal");
      if (!batch.erase_journal.empty()) events_.push_back("erase");
    };
    AddObject();
  }
  void AddObject() {
    auto object = std::make_unique<Object>();
    object->number = kNumber;
    object->volume = ObjectNumber{1};
    object->cookie_key = "object";
    object->size_known = true;
    object->size_bytes = kSize;
    object->presence = PresenceMap(kSize);
    const MutexLock lock(&core_.mu);
    core_.engine.Attach(Generation{1});
    core_.names.Set(ObjectNumber{1}, "object", kNumber);
    core_.engine.AddObject(std::move(object));
  }
  AcquireDone Answer() {
    return [this](const Status&) { events_.push_back("answer"); };
  }
  // Requests bytes that no read waits for.
  void Prefetch() {
    Transaction transaction(&core_);
    core_.engine.Prefetch(core_.engine.Find(kNumber), {0, 4096}, transaction.effects());
  }
  std::optional<Delivery> Select() {
    Transaction transaction(&core_);
    return core_.engine.Select(transaction.effects());
  }

  ManualClock clock_;
  ScriptedStore store_;
  IdReserve ids_{&store_, 64};
  MetadataWriter writer_{&store_};
  LogLimiter log_{clock_};
  Events events_;
  GuardedEngine core_{{}, clock_, &ids_, &writer_, &log_, [this] { events_.push_back("wake"); }};
};

TEST_F(GuardedEngineTest, RecordsAreWrittenBeforeAnswersAndErasedFromTheJournalAfterThem) {
  {
    Transaction transaction(&core_);
    transaction.effects()->ended.push_back(MsgId{7});
    transaction.effects()->acquires.emplace_back(Answer(), Status());
    transaction.effects()->changed.push_back(kNumber);
    EXPECT_EQ(events_, Events());
  }
  EXPECT_EQ(events_, (Events{"record", "answer", "erase"}));
  ASSERT_EQ(store_.batches.size(), 2u);
  EXPECT_EQ(store_.batches[0].put_objects[0].cookie, "object");
  EXPECT_EQ(store_.batches[0].put_objects[0].size_bytes, kSize);
  EXPECT_EQ(store_.batches[1].erase_journal, std::vector<MsgId>{MsgId{7}});
}

TEST_F(GuardedEngineTest, ARequestIsInTheJournalBeforeItCanBeDelivered) {
  bool was_deliverable = true;
  const auto note = std::exchange(store_.on_commit, {});
  store_.on_commit = [&](const MetadataBatch& batch) {
    note(batch);
    const MutexLock lock(&core_.mu);
    was_deliverable = core_.engine.IsReadable();
  };
  Prefetch();
  EXPECT_FALSE(was_deliverable);
  EXPECT_EQ(events_, (Events{"journal", "wake"}));
  ASSERT_EQ(store_.batches[0].put_journal.size(), 1u);
  const JournalRecord& record = store_.batches[0].put_journal[0];
  EXPECT_EQ(record.object, kNumber);
  EXPECT_TRUE(record.range.Contains({0, 4096}));
  EXPECT_EQ(record.generation, Generation{1});
  const MutexLock lock(&core_.mu);
  EXPECT_TRUE(core_.engine.IsReadable());
}

TEST_F(GuardedEngineTest, ARequestThatEndsWhileItIsWrittenLeavesTheJournal) {
  store_.on_commit = [this](const MetadataBatch& batch) {
    if (batch.put_journal.empty()) return;
    Transaction transaction(&core_);
    core_.engine.EndBackground(core_.engine.Find(kNumber), transaction.effects());
  };
  Prefetch();
  // Once with its end, which may have been before the record, and once behind the record.
  const MsgId id = store_.batches.front().erase_journal.at(0);
  ASSERT_EQ(store_.batches.size(), 3u);
  EXPECT_EQ(store_.batches[1].put_journal.at(0).msg_id, id);
  EXPECT_EQ(store_.batches[2].erase_journal, std::vector<MsgId>{id});
}

TEST_F(GuardedEngineTest, ARequestThatTheStoreRefusesIsDeliveredAllTheSame) {
  store_.trouble = Status(ENOSPC, "full");
  Prefetch();
  (void)Select();  // Makes the object's OPEN.
  const auto delivery = Select();
  ASSERT_TRUE(delivery.has_value());
  EXPECT_TRUE(std::holds_alternative<wire::OpenMessage>(delivery->message));
}

TEST_F(GuardedEngineTest, ARecordThatTheStoreRefusesIsDue) {
  const auto is_due = [this] {
    const MutexLock lock(&core_.mu);
    return core_.engine.Find(kNumber)->record_due;
  };
  const auto change = [this] {
    Transaction transaction(&core_);
    transaction.effects()->changed.push_back(kNumber);
  };
  change();
  EXPECT_FALSE(is_due());
  store_.trouble = Status(ENOSPC, "full");
  change();
  EXPECT_TRUE(is_due());
}

TEST_F(GuardedEngineTest, AnObjectOfUnknownSizeHasNoRecord) {
  {
    Transaction transaction(&core_);
    core_.engine.Find(kNumber)->size_known = false;
    transaction.effects()->changed = {kNumber, ObjectNumber{4711}};
  }
  EXPECT_EQ(events_, Events());
}

TEST_F(GuardedEngineTest, ACallbackMayBeginATransaction) {
  {
    Transaction transaction(&core_);
    transaction.effects()->acquires.emplace_back([this](const Status&) { Prefetch(); }, Status());
  }
  EXPECT_EQ(events_, (Events{"journal", "wake"}));
}

TEST_F(GuardedEngineTest, WorkForLaterIsCarriedOutByRun) {
  GuardedEngine::Work work;
  {
    Transaction transaction(&core_, &work);
    transaction.effects()->acquires.emplace_back(Answer(), Status());
    transaction.effects()->wake_device = true;
  }
  EXPECT_EQ(events_, Events());
  core_.Run(std::move(work));
  EXPECT_EQ(events_, (Events{"wake", "answer"}));
}

TEST_F(GuardedEngineTest, AnObjectThatLeavesMemoryLosesItsNameInTheSameTransaction) {
  {
    Transaction transaction(&core_);
    core_.engine.Evict(core_.engine.Find(kNumber), transaction.effects());
  }
  const MutexLock lock(&core_.mu);
  EXPECT_EQ(core_.names.Find(ObjectNumber{1}, "object"), std::nullopt);
}

}  // namespace
}  // namespace cachecore
