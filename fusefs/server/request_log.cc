#include "fusefs/server/request_log.h"

#include <glog/logging.h>
#include <linux/fuse.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <utility>

namespace fusefs {

using cachecore::MutexLock;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

namespace {

constexpr uint64_t kMagic = 0x31676f6c66686c48;  // Changes with the layout.
constexpr size_t kHeaderBytes = 4096;
constexpr size_t kSlotBytes = 1000;
constexpr uint32_t kSlots = 65536;
// A request but the largest (a batch of forgets) is far below this.
constexpr size_t kLockedBytes = 64 << 10;

bool HasAnswer(uint32_t opcode) {
  return opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET && opcode != FUSE_INTERRUPT &&
         opcode != FUSE_INIT && opcode != FUSE_DESTROY;
}

fuse_in_header HeaderOf(const void* request) {
  fuse_in_header header;
  std::memcpy(&header, request, sizeof(header));
  return header;
}

}  // namespace

struct RequestLog::Header {
  uint64_t magic;
  std::atomic<uint32_t> high_water;  // Slots from here on were never used.
};

struct RequestLog::Slot {
  std::atomic<uint32_t> size;  // 0: free.  Set last and cleared first.
  char bytes[kSlotBytes - sizeof(uint32_t)];
};

namespace {

constexpr size_t kAreasAt = kHeaderBytes;
constexpr size_t kSlotsAt = kAreasAt + RequestLog::kAreas * RequestLog::kAreaBytes;
constexpr size_t kTotalBytes = kSlotsAt + kSlots * kSlotBytes;

}  // namespace

Result<std::unique_ptr<RequestLog>> RequestLog::Open(UniqueFd memory) {
  const bool fresh = !memory.valid();
  if (fresh) {
    memory.Reset(memfd_create(kMemoryName, MFD_CLOEXEC));
    if (!memory.valid() || ftruncate(memory.get(), kTotalBytes) != 0) {
      return Status::FromErrno(errno, "making the memory of FUSE requests");
    }
  }
  std::unique_ptr<RequestLog> log(new RequestLog(std::move(memory)));
  RETURN_IF_ERROR(log->Map(fresh));
  log->Collect();
  return log;
}

Status RequestLog::CheckLayout(int memory) {
  struct stat info;
  uint64_t magic = 0;
  if (fstat(memory, &info) != 0 || pread(memory, &magic, sizeof magic, 0) < 0) {
    return Status::FromErrno(errno, "reading a memory of FUSE requests");
  }
  const bool is_ours = static_cast<size_t>(info.st_size) == kTotalBytes && magic == kMagic;
  return is_ours ? Status()
                 : Status(EPROTO,
                          "the FUSE requests that the running daemon keeps are of another "
                          "layout, and this kernel cannot send them again");
}

Status RequestLog::Map(bool fresh) {
  static_assert(sizeof(Slot) == kSlotBytes && sizeof(Header) <= kHeaderBytes);
  struct stat info;
  if (fstat(memory_.get(), &info) != 0) return Status::FromErrno(errno, "fstat of a memory file");
  const Status foreign(EPROTO, "the stored memory of FUSE requests is of another layout");
  if (static_cast<size_t>(info.st_size) != kTotalBytes) return foreign;
  void* mapped =
      mmap(nullptr, kTotalBytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory_.get(), /*offset=*/0);
  if (mapped == MAP_FAILED) return Status::FromErrno(errno, "mapping the memory of FUSE requests");
  base_ = static_cast<char*>(mapped);
  header_ = reinterpret_cast<Header*>(base_);
  if (fresh) header_->magic = kMagic;
  return header_->magic == kMagic && header_->high_water.load() <= kSlots ? Status() : foreign;
}

RequestLog::~RequestLog() {
  if (base_ != nullptr) munmap(base_, kTotalBytes);
}

void* RequestLog::Area(int index) {
  CHECK_LT(index, kAreas);
  char* area = base_ + kAreasAt + static_cast<size_t>(index) * kAreaBytes;
  if (mlock(area, kLockedBytes) != 0) {
    PLOG(WARNING) << "mlock of a receive buffer; raise RLIMIT_MEMLOCK";
    PCHECK(madvise(area, kLockedBytes, MADV_POPULATE_WRITE) == 0);
  }
  return area;
}

RequestLog::Slot* RequestLog::SlotAt(uint32_t index) {
  return reinterpret_cast<Slot*>(base_ + kSlotsAt + index * kSlotBytes);
}

void RequestLog::Collect() {
  std::map<uint64_t, std::string> found;  // By unique: the kernel counts up.
  const auto read = [](const char* bytes, size_t size) -> std::string {
    if (size < sizeof(fuse_in_header) || size > sizeof(Slot::bytes)) return "";
    const fuse_in_header header = HeaderOf(bytes);
    return header.len == size && HasAnswer(header.opcode) ? std::string(bytes, size) : "";
  };
  {
    MutexLock lock(&mu_);
    for (uint32_t index = 0; index < header_->high_water.load(); ++index) {
      Slot* slot = SlotAt(index);
      std::string request = read(slot->bytes, slot->size.load(std::memory_order_acquire));
      if (request.empty()) {
        slot->size.store(0);
        free_.push_back(index);
        continue;
      }
      const uint64_t unique = HeaderOf(request.data()).unique;
      slots_.emplace(unique, index);
      found.emplace(unique, std::move(request));
    }
  }
  for (int index = 0; index < kAreas; ++index) {
    const char* area = base_ + kAreasAt + static_cast<size_t>(index) * kAreaBytes;
    std::string request = read(area, HeaderOf(area).len);
    if (request.empty()) continue;
    const uint64_t unique = HeaderOf(request.data()).unique;
    if (found.emplace(unique, request).second) Add(request.data(), request.size());
  }
  for (auto& [unique, request] : found) unanswered_.push_back(std::move(request));
}

void RequestLog::Add(const void* request, size_t size) {
  const fuse_in_header header = HeaderOf(request);
  if (!HasAnswer(header.opcode)) return;
  MutexLock lock(&mu_);
  const uint32_t high_water = header_->high_water.load();
  if (size > sizeof(Slot::bytes) || (free_.empty() && high_water == kSlots)) {
    LOG_FIRST_N(WARNING, 1) << "a FUSE request of " << size << " bytes, " << slots_.size()
                            << " waiting: it would be lost if this process were killed now";
    return;
  }
  uint32_t index = high_water;
  if (free_.empty()) {
    header_->high_water.store(high_water + 1);
  } else {
    index = free_.back();
    free_.pop_back();
  }
  Slot* slot = SlotAt(index);
  std::memcpy(slot->bytes, request, size);
  slot->size.store(static_cast<uint32_t>(size), std::memory_order_release);
  slots_.emplace(header.unique, index);
}

void RequestLog::Remove(uint64_t unique) {
  MutexLock lock(&mu_);
  const auto it = slots_.find(unique);
  if (it == slots_.end()) return;
  SlotAt(it->second)->size.store(0, std::memory_order_release);
  free_.push_back(it->second);
  slots_.erase(it);
}

}  // namespace fusefs
