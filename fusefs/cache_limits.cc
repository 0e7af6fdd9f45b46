#include "fusefs/cache_limits.h"

#include <glog/logging.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <span>
#include <unordered_set>
#include <utility>

#include "cachecore/policy/choices.h"
#include "cachecore/protocol/control_messages.h"

namespace fusefs {

using cachecore::ByteRange;
using cachecore::CullPart;
using cachecore::DiskSpace;
using cachecore::Result;
using cachecore::SizeOrPercent;
using cachecore::Status;
namespace field = cachecore::control::field;

namespace {

// Culling goes on until the limit is kept by this part of it.
constexpr uint64_t kMarginParts = 20;
// One cull: its readers wait for so much at most.
constexpr uint64_t kLargestCull = 32 << 20;
constexpr std::chrono::seconds kHold(1);
constexpr char kFullDisk[] = "full";
constexpr char kUnreachable[] = "unreachable";  // A kind of what is said.
// Where culling cannot make the room that is wanted, what was used since stays.
constexpr std::chrono::seconds kKeptInVain(60);
// In one round, of different objects: more means that it is the disk.
constexpr size_t kMaxFailures = 4;
// A disk with less room than this, beside what is being fetched, is full; so much more is made.
constexpr uint64_t kFull = 4 << 20;
constexpr uint64_t kRoom = 16 << 20;
// What was mounted before has time to be mounted again.
constexpr std::chrono::seconds kMountsComeBack(60);
// Where no object without a mount is left to make the room that is left by default.
constexpr std::chrono::seconds kNextTry(60);
// With more room than this it is not looked how much is being fetched.
constexpr uint64_t kFarFromFull = 1 << 30;

std::string Bytes(uint64_t bytes) { return std::to_string(bytes) + " bytes"; }

}  // namespace

CacheLimits::CacheLimits(CacheLimitOptions options, const cachecore::Clock& clock,
                         cachecore::Cache* cache, cachecore::Culler::IsMounted is_mounted)
    : flags_(options), clock_(clock), cache_(cache), is_mounted_(std::move(is_mounted)) {}

CacheLimitOptions CacheLimits::Now() const {
  const cachecore::ChosenLimits chosen = cache_->choices().limits();
  CacheLimitOptions now = flags_;
  now.max = chosen.max.value_or(flags_.max);
  now.min_free = chosen.min_free.value_or(flags_.min_free);
  now.max_by_default = flags_.max_by_default && !chosen.max;
  now.min_free_by_default = flags_.min_free_by_default && !chosen.min_free;
  return now;
}

nlohmann::json CacheLimits::Describe() {
  const cachecore::ChosenLimits chosen = cache_->choices().limits();
  const CacheLimitOptions now = Now();
  const Result<DiskSpace> disk = cache_->disk_space();
  const Result<uint64_t> allocated = cache_->AllocatedBytes();
  const auto source = [](const std::optional<SizeOrPercent>& choice, bool by_default) {
    return choice ? "limit" : by_default ? "default" : "flag";
  };
  nlohmann::json limits = {
      {field::kMax, cachecore::LimitText(now.max)},
      {field::kMaxSource, source(chosen.max, now.max_by_default)},
      {field::kMinFree, cachecore::LimitText(now.min_free)},
      {field::kMinFreeSource, source(chosen.min_free, now.min_free_by_default)},
      {field::kApplies, now.applies}};
  if (allocated.ok()) limits[field::kAllocated] = *allocated;
  if (disk.ok()) {
    limits[field::kFree] = disk->free;
    limits[field::kTotal] = disk->total;
    limits[field::kMaxBytes] = now.max.Of(disk->total);
    limits[field::kMinFreeBytes] = now.min_free.Of(disk->total);
  }
  {
    cachecore::MutexLock lock(&mu_);
    limits[field::kTrouble] = trouble_;
  }
  // Culling finds it later: not before mounts had time to come back, and not where nothing is culled.
  if (limits[field::kTrouble] == "" && disk.ok() && WaitsForRoom(*disk)) {
    limits[field::kTrouble] = "the file system of the cache is full, with " + Bytes(disk->free) +
                              " free, and a read waits";
  }
  return limits;
}

void CacheLimits::TakeLimits() {
  const CacheLimitOptions now = Now();
  if (now == options_) return;
  options_ = now;
  held_until_ = cachecore::Duration(0);
  EndSpell();
}

uint64_t CacheLimits::Coming() {
  uint64_t coming = 0;
  for (const cachecore::RequestInfo& request : cache_->DescribeRequests()) {
    if (request.opcode == cachecore::wire::Opcode::kRead) coming += request.range.size();
  }
  return coming;
}

bool CacheLimits::WaitsForRoom(const DiskSpace& disk) const {
  if (disk.free >= kFull) return false;
  const std::vector<cachecore::RequestInfo> requests = cache_->DescribeRequests();
  return std::any_of(requests.begin(), requests.end(), [](const auto& request) {
    return request.opcode == cachecore::wire::Opcode::kRead && !request.cause.empty();
  });
}

uint64_t CacheLimits::Used(const DiskSpace& disk) {
  const uint64_t coming = Coming();
  if (!allocated_) return disk.total - disk.free + coming;
  const cachecore::EngineCounters counters = cache_->counters();
  const uint64_t filled = counters.bytes_filled - counters.bytes_culled;
  return *allocated_ + (filled - filled_then_) + coming;
}

uint64_t CacheLimits::Max(const DiskSpace& disk) const { return options_.max.Of(disk.total); }

bool CacheLimits::AwaitsMounts() const {
  return options_.max_by_default && clock_.Now() < default_from_;
}

uint64_t CacheLimits::MinFree(const DiskSpace& disk) const {
  const bool counts =
      !options_.min_free_by_default || clock_.Now() >= std::max(default_from_, min_free_from_);
  return counts ? options_.min_free.Of(disk.total) : 0;
}

bool CacheLimits::AreFar(const DiskSpace& disk) const {
  const uint64_t max = Max(disk), min_free = MinFree(disk);
  return (max == 0 || disk.total - disk.free + kFarFromFull <= max) &&
         (min_free == 0 || disk.free >= min_free + kFarFromFull);
}

bool CacheLimits::IsKept(uint64_t used, const DiskSpace& disk) const {
  const uint64_t max = Max(disk);
  return (max == 0 || used <= max) && disk.free >= MinFree(disk);
}

uint64_t CacheLimits::AboveMax(uint64_t used, const DiskSpace& disk) const {
  const uint64_t max = Max(disk);
  const uint64_t kept = max - max / kMarginParts;
  return max > 0 && used > kept ? used - kept : 0;
}

uint64_t CacheLimits::MissingFree(const DiskSpace& disk) const {
  const uint64_t min_free = MinFree(disk);
  const uint64_t wanted = min_free + min_free / kMarginParts;
  return min_free > 0 && disk.free < wanted ? wanted - disk.free : 0;
}

void CacheLimits::SayOnce(const std::string& kind, const std::string& text) {
  if (!said_.insert(kind).second) return;
  cache_->log().Warn(
      text, {kind == kFullDisk ? cachecore::LogKind::kNoRoom : cachecore::LogKind::kAboveLimit});
  cachecore::MutexLock lock(&mu_);
  trouble_ = text;
}

void CacheLimits::EndSpell() {
  if (said_.empty()) return;
  said_.clear();
  cachecore::MutexLock lock(&mu_);
  trouble_.clear();
}

Result<CacheLimits::Found> CacheLimits::Find() {
  const cachecore::EngineCounters counters = cache_->counters();
  uint64_t allocated = 0;
  Found found;
  Result<std::vector<CullPart>> parts =
      cache_->culler().FindParts(is_mounted_, &allocated, &found.pinned);
  if (!parts.ok()) {
    SayOnce("list", "the cache is not kept below its limit: " + parts.status().message());
    held_until_ = clock_.Now() + kHold;
    return parts.status();
  }
  allocated_ = allocated;
  filled_then_ = counters.bytes_filled - counters.bytes_culled;
  found.parts = std::move(parts).value();
  return found;
}

void CacheLimits::AwaitMounts() { default_from_ = full_from_ = clock_.Now() + kMountsComeBack; }

void CacheLimits::Keep() {
  TakeLimits();
  if (!options_.applies || clock_.Now() < held_until_) return;
  const Result<DiskSpace> disk = cache_->disk_space();
  if (!disk.ok() || MakeRoomOnFullDisk(*disk)) return;
  if (!options_.IsSet() || AreFar(*disk) || IsKept(Used(*disk), *disk)) return EndSpell();
  Result<Found> found = Find();
  if (!found.ok()) return;
  const uint64_t used = Used(*disk);
  if (IsKept(used, *disk)) return EndSpell();
  const Wanted wanted{AboveMax(used, *disk), MissingFree(*disk)};
  if (AwaitsMounts()) {
    std::erase_if(found->parts, [](const CullPart& part) { return !part.is_mounted; });
  }
  KeepWhatIsUsed(*disk, wanted, &*found);
  const uint64_t culled = CullParts(found->parts, wanted);
  if (culled < std::max(wanted.below_max, wanted.free) && !IsEnough(culled, wanted)) {
    GiveUp(culled, wanted, *found);
  }
  allocated_.reset();
}

void CacheLimits::GiveUp(uint64_t culled, const Wanted& wanted, const Found& found) {
  if (culled >= wanted.below_max && options_.min_free_by_default) {
    min_free_from_ = clock_.Now() + kNextTry;
    return;  // As it is where other files take the room: nobody has asked for more.
  }
  held_until_ = clock_.Now() + kHold;
  if (said_.contains(kUnreachable) || AwaitsMounts()) return;
  const uint64_t above = std::max(wanted.below_max, wanted.free) - culled;
  SayOnce("above", "the cache is above its limit by " + Bytes(above) +
                       (found.pinned > 0 ? ": " + Bytes(found.pinned) +
                                               " are pinned (holdfast cache unpin), the "
                                               "others are in use"
                                         : ", which are in use"));
}

bool CacheLimits::MakeRoomOnFullDisk(const DiskSpace& disk) {
  if (disk.free > kFarFromFull || clock_.Now() < full_from_) return false;
  const uint64_t coming = Coming();
  if (coming == 0 || disk.free >= coming + kFull) return false;
  Result<Found> found = Find();
  if (!found.ok()) return true;
  // What is being used is worth as much as what is being fetched, unless a limit says that the
  // least recently used goes.
  const bool is_lru = options_.IsAskedFor() || (Max(disk) > 0 && Used(disk) > Max(disk));
  if (!is_lru) {
    std::erase_if(found->parts,
                  [](const CullPart& part) { return part.is_mounted && part.age < kKeptInVain; });
  }
  const uint64_t wanted = coming + kRoom - disk.free;
  const uint64_t culled = CullParts(found->parts, {wanted, 0});
  allocated_.reset();
  if (culled >= wanted) return true;
  held_until_ = clock_.Now() + kHold;
  SayOnce(kFullDisk,
          "the file system of the cache is full, with " + Bytes(disk.free) + " free; " +
              Bytes(found->pinned) + " of the cache are pinned, and the rest " +
              (is_lru ? "is in use"
                      : "was used in the last " + std::to_string(kKeptInVain.count()) + " s") +
              ": what is to be fetched waits for room");
  return true;
}

void CacheLimits::KeepWhatIsUsed(const DiskSpace& disk, const Wanted& wanted, Found* found) {
  const bool spares_mounts = options_.min_free_by_default && wanted.free > 0;
  // Then another program needs the room, and has it whatever is culled here.
  const bool in_vain = wanted.free > *allocated_;
  if (!spares_mounts && !in_vain) return;
  if (!spares_mounts) {
    SayOnce(
        kUnreachable,
        Bytes(MinFree(disk)) + " of the file system cannot be left free: " +
            std::to_string(disk.free) + " are, and the cache has " + std::to_string(*allocated_) +
            (found->pinned > 0 ? ", " + std::to_string(found->pinned) + " of them pinned" : "") +
            "; it keeps what was used in the last " + std::to_string(kKeptInVain.count()) + " s");
  }
  uint64_t needed = wanted.below_max;
  std::erase_if(found->parts, [&](const CullPart& part) {
    const bool is_needed = needed > 0;  // For the other limit.
    needed -= std::min(needed, part.bytes);
    return !is_needed && (spares_mounts ? part.is_mounted : part.age < kKeptInVain);
  });
}

// Another instance may have made room, too.
bool CacheLimits::IsEnough(uint64_t culled, const Wanted& wanted) const {
  if (culled < wanted.below_max) return false;
  if (culled >= wanted.free) return true;
  const Result<DiskSpace> disk = cache_->disk_space();
  return disk.ok() && MissingFree(*disk) == 0;
}

Status CacheLimits::CullTogether(std::span<const CullPart> parts, const Wanted& wanted,
                                 uint64_t* culled) {
  const ByteRange all{parts.front().range.begin, parts.back().range.end};
  const Status status = cache_->culler().Cull(parts.front().object, all);
  for (const CullPart& part : parts) *culled += status.ok() ? part.bytes : 0;
  if (status.error() != EBUSY || parts.size() == 1) return status;
  // A read waits for one of them.
  for (size_t i = 0; i < parts.size() && !IsEnough(*culled, wanted); ++i) {
    const Status one = CullTogether(parts.subspan(i, 1), wanted, culled);
    if (!one.ok() && one.error() != EBUSY) return one;
  }
  return Status();
}

uint64_t CacheLimits::CullParts(const std::vector<CullPart>& parts, const Wanted& wanted) {
  const uint64_t most = std::max(wanted.below_max, wanted.free);
  uint64_t culled = 0;
  size_t failures = 0;
  std::unordered_set<cachecore::ObjectNumber> left;  // No more of them in this round.
  for (size_t i = 0; i < parts.size() && !IsEnough(culled, wanted);) {
    const size_t first = i;
    const CullPart& part = parts[first];
    uint64_t bytes = part.bytes;
    for (++i; i < parts.size() && parts[i].object == part.object &&
              parts[i].range.begin == parts[i - 1].range.end && culled + bytes < most &&
              parts[i].range.end - part.range.begin <= kLargestCull;
         ++i) {
      bytes += parts[i].bytes;
    }
    if (left.contains(part.object)) continue;
    const Status status = CullTogether(std::span(parts).subspan(first, i - first), wanted, &culled);
    if (status.ok() || status.error() == EBUSY) continue;
    left.insert(part.object);
    if (status.error() == ETIMEDOUT) continue;
    if (status.error() == ESTALE) {
      if (cache_->culler().RemoveStray(part.object).ok()) culled += bytes;
      continue;
    }
    SayOnce("cull", "culling " + part.range.ToString() + " of object " +
                        std::to_string(part.object.value) + ": " + status.message());
    // An object that is gone needs no record that says so.
    if (!part.is_mounted && cache_->culler().DropUnused(part.object, is_mounted_).ok()) {
      for (const CullPart& one : parts) culled += one.object == part.object ? one.bytes : 0;
      continue;
    }
    if (++failures == kMaxFailures) break;
  }
  return culled;
}

}  // namespace fusefs
