#include "cachecore/cache/guarded_engine.h"

#include <utility>

namespace cachecore {

ObjectRecord RecordOf(const Object& object) {
  return {object.number, object.volume, object.cookie_key, object.size_bytes,
          object.stale,  object.attr,   object.digest,     object.facts};
}

GuardedEngine::GuardedEngine(EngineOptions options, const Clock& clock, IdReserve* ids,
                             MetadataWriter* writer, LogLimiter* log,
                             std::function<void()> wake_device, Totals* totals)
    : engine(
          options, clock, [ids] { return ids->TakeMsgId(); },
          [ids] { return ids->TakeObjectId(); }),
      writer_(writer),
      log_(log),
      wake_device_(std::move(wake_device)) {
  if (totals == nullptr) return;
  engine.counters().ForEach([this, totals](const char* name, uint64_t) {
    const Count count = totals->Find(name);
    totals_.push_back({count, count.value()});
  });
}

void GuardedEngine::AddUp() {
  if (totals_.empty()) return;
  size_t next = 0;
  engine.counters().ForEach([this, &next](const char*, uint64_t value) {
    const Total& total = totals_[next++];
    total.count.Set(total.before + value);
  });
}

GuardedEngine::Transaction::Transaction(GuardedEngine* core) : Transaction(core, nullptr) {}

GuardedEngine::Transaction::Transaction(GuardedEngine* core, Work* later)
    : core_(core), later_(later) {
  core_->mu.Lock();
}

GuardedEngine::Transaction::~Transaction() {
  core_->Seal(&work_);
  core_->AddUp();
  core_->mu.Unlock();
  if (later_ != nullptr) {
    *later_ = std::move(work_);
  } else {
    core_->Run(std::move(work_));
  }
}

// Copies out of the engine what Run needs, while the lock is still held.
void GuardedEngine::Seal(Work* work) {
  for (const MsgId id : work->effects.created) {
    const Request* request = engine.FindRequest(id);
    if (request == nullptr || request->opcode == wire::Opcode::kClose) continue;
    JournalRecord record{id, static_cast<uint32_t>(request->opcode), request->object,
                         request->range, engine.generation()};
    work->journal.push_back(record);
  }
  // An object that has left memory is found by name in the store, if it has a record.
  for (const Effects::Forgotten& object : work->effects.forgotten) names.Forget(object);
  for (const ObjectNumber number : work->effects.changed) {
    const Object* object = engine.Find(number);
    if (object != nullptr && object->size_known) work->records.push_back(RecordOf(*object));
  }
}

void GuardedEngine::Run(Work work) {
  Effects& effects = work.effects;
  // Before the answers: the answer to a look-up gives the kernel a node id, which the next daemon
  // must know.
  MetadataBatch before;
  before.put_objects = std::move(work.records);
  before.put_journal = std::move(work.journal);
  before.put_uses = std::move(effects.uses);
  if (!writer_->CommitOrLog(before)) {  // Sync tries those again.
    MutexLock lock(&mu);
    for (const ObjectRecord& record : before.put_objects) {
      if (Object* object = engine.Find(record.number)) object->record_due = true;
    }
  }

  if (!effects.created.empty()) {
    MutexLock lock(&mu);
    for (const MsgId id : effects.created) {
      if (!engine.Publish(id, &effects)) effects.ended.push_back(id);
    }
  }
  if (effects.wake_device) wake_device_();
  for (auto& [done, status, bytes] : effects.reads) done(status, bytes);
  for (auto& [done, status] : effects.acquires) done(status);
  for (const std::string& line : effects.log) log_->Warn(line);

  // After the answers: a journal record that outlives its request costs a look at restart only.
  MetadataBatch after;
  after.erase_journal = std::move(effects.ended);
  writer_->CommitOrLog(after);
}

}  // namespace cachecore
