// Cache's way to the disk: what has been filled becomes durable here.

#include <fcntl.h>
#include <glog/logging.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "cachecore/cache.h"
#include "cachecore/fault_point.h"

namespace cachecore {
namespace {

#ifdef HOLDFAST_BREAK_SYNC_ORDER
// For a program that tests/crash/power_cut_test.py must find wrong, and for nothing else.
constexpr bool kDataFirst = false;
#else
constexpr bool kDataFirst = true;
#endif

std::vector<ByteRange> Coalesced(std::vector<ByteRange> ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](ByteRange a, ByteRange b) { return a.begin < b.begin; });
  std::vector<ByteRange> merged;
  for (const ByteRange range : ranges) {
    if (!merged.empty() && range.begin <= merged.back().end) {
      merged.back().end = std::max(merged.back().end, range.end);
    } else {
      merged.push_back(range);
    }
  }
  return merged;
}

// Writes the ranges to disk.  In small steps: a process that is killed cannot leave a system call
// that waits for the disk, and its successor would have to wait for it.
Status WriteOut(int fd, const std::vector<ByteRange>& ranges) {
  constexpr uint64_t kStep = 4 << 20;
  for (const ByteRange range : ranges) {
    for (uint64_t at = range.begin; at < range.end; at += kStep) {
      const auto length = static_cast<off64_t>(std::min(kStep, range.end - at));
      // Its error is told once, here or by fdatasync, so neither may be passed over.
      if (sync_file_range(fd, static_cast<off64_t>(at), length,
                          SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                              SYNC_FILE_RANGE_WAIT_AFTER) != 0) {
        return Status::FromErrno(errno, "sync_file_range");
      }
    }
  }
  return fdatasync(fd) == 0 ? Status() : Status::FromErrno(errno, "fdatasync");
}

}  // namespace

uint64_t Cache::unsynced_bytes() {
  MutexLock lock(&mu_);
  uint64_t bytes = 0;
  for (const auto& [number, object] : engine_.objects()) bytes += object->unsynced_bytes;
  return bytes;
}

SyncCounters Cache::sync_counters() {
  MutexLock lock(&mu_);
  return sync_counters_;
}

// What an earlier life of this boot filled and died before it had synced is ours to sync.  Loading
// an object queues it; those that nobody uses are loaded here.
void Cache::AdoptUnsynced() {
  const Result<std::vector<ObjectNumber>> objects = store_->FindUndurable();
  Status status = objects.status();
  for (size_t i = 0; objects.ok() && i < objects->size(); ++i) {
    const Status loaded = EnsureLoaded((*objects)[i]);
    if (!loaded.ok()) status = loaded;
  }
  LOG_IF(ERROR, !status.ok()) << "some of what was fetched before the last restart of holdfastd "
                                 "would be lost by a power cut: "
                              << status.message();
}

// Presence that was recorded while its object was being dropped would outlive it.
void Cache::EraseStray(ObjectNumber number) {
  {
    MutexLock lock(&mu_);
    if (engine_.Find(number) != nullptr) return;
  }
  // It may have left memory alone; then it still has a record.
  const Result<std::optional<ObjectRecord>> record = store_->LoadObject(number);
  if (!record.ok() || record->has_value()) return;
  MetadataBatch batch;
  batch.erase_objects.push_back({});
  batch.erase_objects.back().number = number;
  CommitOrLog(batch);
}

Status Cache::RecordDurable(const SyncItem& item) {
  // Not what was found wrong since it was filled.
  MutexLock durable_lock(&durable_mu_);
  MetadataBatch batch;
  {
    MutexLock lock(&mu_);
    const Object* object = engine_.Find(item.number);
    for (const ByteRange range : item.ranges) {
      for (ByteRange part{range.begin, range.begin}; part.end < range.end;) {
        part.begin = object == nullptr ? range.end
                                       : object->presence.FirstPresent({part.end, range.end});
        part.end = part.begin == range.end
                       ? range.end
                       : object->presence.FirstMissing({part.begin, range.end});
        if (!part.empty()) batch.add_presence.push_back({item.number, part, Presence::kDurable});
      }
    }
  }
  if (batch.empty()) return Status();
  Status status = store_->Commit(batch, Sync::kYes);
  if (status.ok()) {
    EraseStray(item.number);
    return status;
  }
  LOG(ERROR) << "not durable yet, will be tried again: " << status.message();
  MutexLock lock(&mu_);
  if (Object* object = engine_.Find(item.number); object != nullptr) {
    for (const ByteRange range : item.ranges) {
      object->unsynced.push_back(range);
      object->unsynced_bytes += range.size();
    }
  }
  return status;
}

void Cache::SyncOne(const SyncItem& item) {
  if (!kDataFirst) (void)RecordDurable(item);
  // Data first: a durable record must never be of bytes that a power cut can take.
  Status written = WriteOut(item.file->get(), item.ranges);
  if (written.ok()) written = PassFaultPoint(Fault::kDataSynced);
  if (!written.ok()) {
    // The kernel has thrown away pages that it could not write; which, nobody can say.
    MutexLock load_lock(&load_mu_);
    const Status dropped =
        DropObject(item.number, data_.PathOf(item.number) + ": " + written.message());
    LOG_IF(ERROR, !dropped.ok()) << dropped.message();
    return;
  }
  if (kDataFirst && !RecordDurable(item).ok()) return;
  MutexLock lock(&mu_);
  for (const ByteRange range : item.ranges) sync_counters_.bytes += range.size();
}

// Records that changed while the store could not be written to.
void Cache::WriteDueRecords() {
  MetadataBatch batch;
  {
    MutexLock lock(&mu_);
    for (const auto& [number, object] : engine_.objects()) {
      if (std::exchange(object->record_due, false)) batch.put_objects.push_back(RecordOf(*object));
    }
  }
  if (CommitOrLog(batch)) return;
  MutexLock lock(&mu_);
  for (const ObjectRecord& record : batch.put_objects) {
    if (Object* object = engine_.Find(record.number)) object->record_due = true;
  }
}

void Cache::Sync() {
  const Duration started = clock_.Now();
  if (!std::exchange(adopted_, true)) AdoptUnsynced();
  std::vector<SyncItem> items;
  {
    MutexLock lock(&mu_);
    for (const auto& [number, object] : engine_.objects()) {
      if (object->unsynced.empty()) continue;
      items.push_back({number, object->file, std::exchange(object->unsynced, {})});
      object->unsynced_bytes = 0;
      object->syncing = true;  // It must be there when it turns out that it cannot be written.
    }
  }
  for (SyncItem& item : items) {
    item.ranges = Coalesced(std::move(item.ranges));
    SyncOne(item);
    MutexLock lock(&mu_);
    if (Object* object = engine_.Find(item.number)) object->syncing = false;
  }
  WriteDueRecords();
  MakeRoom(options_.max_objects);  // Some are idle only now.
  MutexLock lock(&mu_);
  sync_counters_.longest = std::max(sync_counters_.longest, clock_.Now() - started);
}

}  // namespace cachecore
