// EngineRig: an Engine with a hand-turned clock, ids that are recorded, and a vocabulary for tests.
//
// Model    plays Cache: effects are carried out at once, except that journaling can be put off,
//          which is where a request exists and may not be delivered yet.

#ifndef TESTS_CACHECORE_ENGINE_ENGINE_RIG_H_
#define TESTS_CACHECORE_ENGINE_ENGINE_RIG_H_

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cachecore/engine/engine.h"

namespace cachecore {

class ManualClock : public Clock {
 public:
  Duration Now() const override { return now; }
  Duration now{1};
};

class EngineRig {
 public:
  struct ReadState {
    ObjectNumber object;
    ByteRange range;
    ReadTicket ticket;
    int times_ended = 0;
    Status status;
    std::vector<ThroughPart> through;
  };

  explicit EngineRig(EngineOptions options = {})
      : engine(
            options, clock, [this] { return MsgId{next_msg_id++}; },
            [this] { return ObjectId{next_object_id++}; }) {
    engine.Attach(Generation{generation});
  }

  Object* AddKnown(uint64_t number, uint64_t size_bytes) {
    auto object = AddUnknown(number);
    object->size_known = true;
    object->size_bytes = size_bytes;
    object->presence = PresenceMap(size_bytes);
    return object;
  }
  Object* AddUnknown(uint64_t number) {
    auto object = std::make_unique<Object>();
    object->number = ObjectNumber{number};
    object->volume_key = "volume";
    object->cookie_key = "object" + std::to_string(number);
    return engine.AddObject(std::move(object));
  }

  ReadState* Read(Object* object, ByteRange range, Duration timeout = Duration::zero()) {
    ReadState* read = &reads.emplace_back();
    read->object = object->number;
    read->range = range;
    Effects effects;
    const Duration deadline = timeout == Duration::zero() ? timeout : clock.now + timeout;
    read->ticket = engine.Read(
        object, range, deadline,
        [read](const Status& status, const ReadBytes& bytes) {
          ++read->times_ended;
          read->status = status;
          read->through = bytes.through;
        },
        &effects);
    Run(std::move(effects));
    return read;
  }
  // What a hit does for a sequential reader.
  void ReadAhead(Object* object, ByteRange range) {
    Effects effects;
    engine.Prefetch(object, engine.AdvanceReadAhead(object, range), &effects);
    Run(std::move(effects));
  }
  std::optional<Delivery> Select() {
    Effects effects;
    auto delivery = engine.Select(&effects);
    Run(std::move(effects));
    return delivery;
  }
  // Selects until something is deliverable: a reopen takes a second look.
  std::optional<Delivery> Next() {
    auto delivery = Select();
    return delivery ? std::move(delivery) : Select();
  }
  int Copen(MsgId id, int64_t size) {
    Effects effects;
    const int answer = engine.Copen({id, size, 0}, &effects);
    Run(std::move(effects));
    return answer;
  }
  // Opens `object` as a fetcher would; returns its live id.
  ObjectId Open(Object* object) {
    const auto delivery = Next();
    const auto& open = std::get<wire::OpenMessage>(delivery.value().message);
    Copen(open.msg_id, static_cast<int64_t>(object->size_bytes));
    return open.object_id;
  }
  void Fill(Object* object, ByteRange range) {
    Effects effects;
    engine.Fill(object, range, &effects);
    Run(std::move(effects));
  }
  bool BeginCull(Object* object, ByteRange range) {
    return engine.BeginCull(object, range, std::make_shared<const UniqueFd>());
  }
  void CancelCull(Object* object) {
    Effects effects;
    engine.CancelCull(object, &effects);
    Run(std::move(effects));
  }
  void EndCull(Object* object) {
    Effects effects;
    engine.EndCull(object, &effects);
    Run(std::move(effects));
  }
  int Cread(ObjectId object, MsgId id, int error = 0) {
    Effects effects;
    const int answer = engine.Cread({object, id, error}, &effects);
    Run(std::move(effects));
    return answer;
  }
  int Full(ObjectId object) {
    Effects effects;
    const int answer = engine.NoteFull({object}, &effects);
    Run(std::move(effects));
    return answer;
  }
  int Through(ObjectId object, MsgId id, ByteRange range) {
    Effects effects;
    const auto file = std::make_shared<const UniqueFd>();
    const int answer = engine.Through({object, id, range}, file, &effects);
    Run(std::move(effects));
    return answer;
  }
  int Close(ObjectId object) {
    Effects effects;
    const int answer = engine.CloseInstance(object, &effects);
    Run(std::move(effects));
    return answer;
  }
  void Restore() {
    Effects effects;
    engine.Restore(&effects);
    Run(std::move(effects));
  }
  void Reattach(bool fail) {
    Effects effects;
    engine.Detach(fail, &effects);
    Run(std::move(effects));
    engine.Attach(Generation{++generation});
  }
  bool Withdraw(const ReadTicket& ticket) {
    Effects effects;
    const bool withdrawn = engine.Withdraw(ticket, Status(EINTR, "killed"), &effects);
    Run(std::move(effects));
    return withdrawn;
  }
  void Advance(Duration by) {
    clock.now += by;
    Effects effects;
    engine.Expire("nobody answers", &effects);
    Run(std::move(effects));
  }
  void Drop(Object* object) {
    Effects effects;
    engine.Drop(object, &effects);
    Run(std::move(effects));
  }

  void Run(Effects effects) {
    for (const MsgId id : effects.created) {
      created_ids.push_back(id);
      to_journal.push_back(id);
    }
    for (const std::string& line : effects.log) log.push_back(line);
    for (auto& [done, status, through] : effects.reads) done(status, through);
    for (auto& [done, status] : effects.acquires) done(status);
    while (!hold_journal && !to_journal.empty()) JournalOne();
  }
  void JournalOne() {
    const MsgId id = to_journal.front();
    to_journal.pop_front();
    Effects effects;
    engine.Publish(id, &effects);
    Run(std::move(effects));
  }

  ManualClock clock;
  uint32_t next_msg_id = 0;
  uint32_t next_object_id = 1;
  uint64_t generation = 1;
  Engine engine;
  std::deque<ReadState> reads;  // Stable addresses.
  std::vector<MsgId> created_ids;
  std::deque<MsgId> to_journal;
  bool hold_journal = false;
  std::vector<std::string> log;
};

}  // namespace cachecore

#endif  // TESTS_CACHECORE_ENGINE_ENGINE_RIG_H_
