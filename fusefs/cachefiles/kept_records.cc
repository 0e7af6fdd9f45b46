#include "fusefs/cachefiles/kept_records.h"

#include <glog/logging.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

namespace fusefs {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

namespace {

constexpr uint64_t kMagic =
    0x31636664686c6468;  // Changes with the layout, and with that of records.
constexpr size_t kHeaderBytes = 4096;
constexpr size_t kHalfBytes = 16 << 20;
constexpr size_t kTotalBytes = kHeaderBytes + 2 * kHalfBytes;
constexpr size_t kRewriteAfter = 1 << 20;
// Of the header's `committed`: which half, and how much of it.
constexpr uint64_t kSecondHalf = uint64_t{1} << 63;
constexpr uint64_t kNothingKept = UINT64_MAX;

constexpr uint32_t kErased = UINT32_MAX;  // In place of a value's size.

struct EntryHeader {
  uint32_t key_size;
  uint32_t value_size;
};

void Append(std::string* bytes, const std::string& key, const std::string* value) {
  const EntryHeader header = {static_cast<uint32_t>(key.size()),
                              value == nullptr ? kErased : static_cast<uint32_t>(value->size())};
  bytes->append(reinterpret_cast<const char*>(&header), sizeof(header));
  bytes->append(key);
  if (value != nullptr) bytes->append(*value);
}

}  // namespace

struct KeptRecords::Header {
  uint64_t magic;
  std::atomic<uint64_t> committed;
};

Result<std::unique_ptr<KeptRecords>> KeptRecords::Open(UniqueFd memory) {
  const bool fresh = !memory.valid();
  if (fresh) {
    memory.Reset(memfd_create(kMemoryName, MFD_CLOEXEC));
    if (!memory.valid() || ftruncate(memory.get(), kTotalBytes) != 0) {
      return Status::FromErrno(errno, "making the memory of the cachefiles device");
    }
  }
  std::unique_ptr<KeptRecords> kept(new KeptRecords(std::move(memory)));
  RETURN_IF_ERROR(kept->Map(fresh));
  RETURN_IF_ERROR(kept->Load());
  return kept;
}

KeptRecords::~KeptRecords() {
  if (base_ != nullptr) munmap(base_, kTotalBytes);
}

Status KeptRecords::Map(bool fresh) {
  static_assert(sizeof(Header) <= kHeaderBytes);
  const Status foreign(EPROTO, "the stored memory of the cachefiles device is of another layout");
  struct stat info;
  if (fstat(memory_.get(), &info) != 0) return Status::FromErrno(errno, "fstat of a memory file");
  if (static_cast<size_t>(info.st_size) != kTotalBytes) return foreign;
  void* mapped =
      mmap(nullptr, kTotalBytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory_.get(), /*offset=*/0);
  if (mapped == MAP_FAILED) {
    return Status::FromErrno(errno, "mapping the memory of the cachefiles device");
  }
  base_ = static_cast<char*>(mapped);
  header_ = reinterpret_cast<Header*>(base_);
  if (fresh) header_->magic = kMagic;
  return header_->magic == kMagic ? Status() : foreign;
}

char* KeptRecords::HalfAt(size_t half) const { return base_ + kHeaderBytes + half * kHalfBytes; }

Status KeptRecords::Load() {
  const Status damaged(EPROTO, "the stored memory of the cachefiles device holds no whole state");
  const uint64_t committed = header_->committed.load(std::memory_order_acquire);
  const uint64_t size = committed & ~kSecondHalf;
  if (committed == kNothingKept || size > kHalfBytes) return damaged;
  const char* at = HalfAt((committed & kSecondHalf) != 0 ? 1 : 0);
  const char* const end = at + size;
  while (at < end) {
    EntryHeader header;
    if (static_cast<size_t>(end - at) < sizeof(header)) return damaged;
    std::memcpy(&header, at, sizeof(header));
    at += sizeof(header);
    const uint64_t value_size = header.value_size == kErased ? 0 : header.value_size;
    if (static_cast<uint64_t>(end - at) < header.key_size + value_size) return damaged;
    const std::string key(at, header.key_size);
    at += header.key_size;
    if (header.value_size == kErased) {
      records_.erase(key);
    } else {
      records_[key].assign(at, value_size);
    }
    at += value_size;
  }
  return Status();
}

const std::string* KeptRecords::Find(const std::string& key) const {
  const auto it = records_.find(key);
  return it == records_.end() ? nullptr : &it->second;
}

void KeptRecords::Put(const std::string& key, std::string value) {
  std::string& kept = records_[key];
  if (kept == value && !value.empty()) return;
  kept = std::move(value);
  Append(&changes_, key, &kept);
}

void KeptRecords::Erase(const std::string& key) {
  if (records_.erase(key) > 0) Append(&changes_, key, nullptr);
}

void KeptRecords::Commit() {
  const std::string changes = std::exchange(changes_, {});
  const uint64_t committed = header_->committed.load(std::memory_order_relaxed);
  if (changes.empty() || committed == kNothingKept) return;
  const size_t size = committed & ~kSecondHalf;
  if (size + changes.size() > kRewriteAfter + 2 * whole_bytes_ ||
      size + changes.size() > kHalfBytes) {
    Rewrite();
    return;
  }
  std::memcpy(HalfAt((committed & kSecondHalf) != 0 ? 1 : 0) + size, changes.data(),
              changes.size());
  header_->committed.store(committed + changes.size(), std::memory_order_release);
}

void KeptRecords::Rewrite() {
  std::string whole;
  for (const auto& [key, value] : records_) Append(&whole, key, &value);
  if (whole.size() > kHalfBytes) {
    LOG(ERROR) << "the state of the cachefiles device takes " << whole.size()
               << " bytes, more than are kept for it: the device will end with this process";
    header_->committed.store(kNothingKept, std::memory_order_release);
    return;
  }
  const uint64_t other =
      (header_->committed.load(std::memory_order_relaxed) & kSecondHalf) ^ kSecondHalf;
  std::memcpy(HalfAt(other != 0 ? 1 : 0), whole.data(), whole.size());
  header_->committed.store(other | whole.size(), std::memory_order_release);
  whole_bytes_ = whole.size();
}

}  // namespace fusefs
