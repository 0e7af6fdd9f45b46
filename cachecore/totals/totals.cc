#include "cachecore/totals/totals.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "cachecore/base/json_fields.h"

namespace cachecore {
namespace {

constexpr uint64_t kMagic = 0x31736c61746f7468;  // Changes with the layout.
constexpr size_t kHeaderBytes = 64;

}  // namespace

struct Totals::Header {
  uint64_t magic;
  std::atomic<uint64_t> used;  // Slots below it have a name.
};

struct Totals::Slot {
  std::atomic<uint64_t> value;
  char name[kMaxNameSize + 1];
};

namespace {

constexpr size_t kSlotBytes = sizeof(uint64_t) + Totals::kMaxNameSize + 1;
constexpr size_t kTotalBytes = kHeaderBytes + Totals::kMax * kSlotBytes;

}  // namespace

Result<std::unique_ptr<Totals>> Totals::Open(UniqueFd memory) {
  const bool is_new = !memory.valid();
  if (is_new) {
    memory.Reset(memfd_create(kMemoryName, MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!memory.valid() || ftruncate(memory.get(), kTotalBytes) != 0 ||
        fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
      return Status::FromErrno(errno, "making the memory of counters");
    }
  }
  std::unique_ptr<Totals> totals(new Totals(std::move(memory)));
  RETURN_IF_ERROR(totals->Map(is_new));
  return totals;
}

Status Totals::Map(bool is_new) {
  static_assert(sizeof(Slot) == kSlotBytes && sizeof(Header) <= kHeaderBytes);
  struct stat info;
  if (fstat(memory_.get(), &info) != 0) return Status::FromErrno(errno, "fstat of a memory file");
  const Status foreign(EPROTO, "the stored memory of counters is of another layout");
  if (static_cast<size_t>(info.st_size) != kTotalBytes) return foreign;
  void* mapped =
      mmap(nullptr, kTotalBytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory_.get(), /*offset=*/0);
  if (mapped == MAP_FAILED) return Status::FromErrno(errno, "mapping the memory of counters");
  base_ = static_cast<char*>(mapped);
  header_ = reinterpret_cast<Header*>(base_);
  if (is_new) header_->magic = kMagic;
  return header_->magic == kMagic && header_->used.load() <= kMax ? Status() : foreign;
}

Totals::~Totals() {
  if (base_ != nullptr) munmap(base_, kTotalBytes);
}

Totals::Slot* Totals::SlotAt(size_t index) const {
  return reinterpret_cast<Slot*>(base_ + kHeaderBytes + index * kSlotBytes);
}

Count Totals::Find(const std::string& name) {
  const std::string kept = name.substr(0, kMaxNameSize);
  MutexLock lock(&mu_);
  const size_t used = header_->used.load(std::memory_order_acquire);
  for (size_t index = 0; index < used; ++index) {
    if (kept == SlotAt(index)->name) return Count(&SlotAt(index)->value);
  }
  if (used == kMax) return Count();
  Slot* slot = SlotAt(used);
  // Killed before the name counts as used, the next process writes another one over it.
  slot->value.store(0);
  std::memcpy(slot->name, kept.c_str(), kept.size() + 1);
  header_->used.store(used + 1, std::memory_order_release);
  return Count(&slot->value);
}

std::map<std::string, uint64_t> Totals::All() const {
  std::map<std::string, uint64_t> all;
  const size_t used = header_->used.load(std::memory_order_acquire);
  for (size_t index = 0; index < used; ++index) {
    all[SlotAt(index)->name] = SlotAt(index)->value.load(std::memory_order_relaxed);
  }
  return all;
}

std::string Totals::Text() const { return JsonText(nlohmann::json(All()), /*indent=*/0) + "\n"; }

Status Totals::Add(const std::string& text) {
  const nlohmann::json all = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  const bool is_ours =
      all.is_object() && std::all_of(all.begin(), all.end(), [](const nlohmann::json& value) {
        return value.is_number_unsigned();
      });
  if (!is_ours) return Status(EBADMSG, "it is not a list of counters");
  for (const auto& [name, value] : all.items()) Find(name).Add(value.get<uint64_t>());
  return Status();
}

TimeTotals::TimeTotals(Totals* totals, const std::string& name)
    : sum_us_(Totals::Find(totals, SumName(name))) {
  for (size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
    buckets_[bucket] = Totals::Find(totals, BucketName(name, bucket));
  }
}

std::string TimeTotals::BucketName(const std::string& name, size_t bucket) {
  return name + " " + std::to_string(bucket);
}

size_t TimeTotals::BucketOf(Duration took) {
  const double seconds = std::chrono::duration<double>(took).count();
  return static_cast<size_t>(std::lower_bound(kSeconds.begin(), kSeconds.end(), seconds) -
                             kSeconds.begin());
}

void TimeTotals::Note(Duration took) const {
  buckets_[BucketOf(took)].Add(1);
  sum_us_.Add(static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(std::max(took, Duration(0))).count()));
}

}  // namespace cachecore
