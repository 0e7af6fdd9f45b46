#include "cachecore/cache/id_reserve.h"

#include "cachecore/base/fault_point.h"

namespace cachecore {
namespace {

constexpr uint64_t kObjectIdBlock = 4096;
constexpr uint64_t kNumberBlock = 256;

}  // namespace

IdReserve::IdReserve(MetadataStore* store, uint64_t msg_id_block)
    : store_(store),
      msg_id_block_(msg_id_block),
      msg_ids_(msg_id_block / 2),
      object_ids_(kObjectIdBlock / 2),
      numbers_(kNumberBlock / 2) {}

Status IdReserve::EnsureIds() {
  Status status = Refill(&msg_ids_, Counter::kMsgId, msg_id_block_);
  if (status.ok()) status = Refill(&object_ids_, Counter::kObjectId, kObjectIdBlock);
  lacks_ids_.store(!status.ok(), std::memory_order_relaxed);
  return status;
}

Status IdReserve::EnsureNumbers() {
  return Refill(&numbers_, Counter::kObjectNumber, kNumberBlock);
}

MsgId IdReserve::TakeMsgId() { return MsgId{static_cast<uint32_t>(Take(&msg_ids_))}; }

// Cyclic below 2^31 and never 0, as the kernel's.
ObjectId IdReserve::TakeObjectId() {
  return ObjectId{static_cast<uint32_t>(Take(&object_ids_) & 0x7fffffff)};
}

ObjectNumber IdReserve::TakeNumber() { return ObjectNumber{Take(&numbers_)}; }

bool IdReserve::NeedsMore(const IdBlock* block) {
  MutexLock lock(&mu_);
  return block->NeedsMore();
}

uint64_t IdReserve::Take(IdBlock* block) {
  MutexLock lock(&mu_);
  return block->Take();
}

Status IdReserve::Refill(IdBlock* block, Counter counter, uint64_t count) {
  if (!NeedsMore(block)) return Status();
  MutexLock refill_lock(&refill_mu_);
  if (!NeedsMore(block)) return Status();
  const Result<uint64_t> first = store_->Reserve(counter, count);
  FaultPoint(Fault::kIdsReserved);
  MutexLock lock(&mu_);
  if (first.ok()) {
    block->Add(*first, count);
    return Status();
  }
  return block->CanWait() ? Status() : first.status();
}

}  // namespace cachecore
