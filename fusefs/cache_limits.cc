#include "fusefs/cache_limits.h"

#include <glog/logging.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <unordered_set>
#include <utility>

namespace fusefs {

using cachecore::ByteRange;
using cachecore::CullPart;
using cachecore::DiskSpace;
using cachecore::Result;
using cachecore::Status;

namespace {

// Culling goes on until the limit is kept by this part of it.
constexpr uint64_t kMarginParts = 20;
// One cull: its readers wait for so much at most.
constexpr uint64_t kLargestCull = 32 << 20;
constexpr std::chrono::seconds kHold(1);
constexpr char kUnreachable[] = "unreachable";  // A kind of what is said.
// Where culling cannot make the room that is wanted, what was used since stays.
constexpr std::chrono::seconds kKeptInVain(60);
// In one round, of different objects: more means that it is the disk.
constexpr size_t kMaxFailures = 4;

}  // namespace

CacheLimits::CacheLimits(CacheLimitOptions options, const cachecore::Clock& clock,
                         cachecore::Cache* cache, cachecore::Culler::IsMounted is_mounted)
    : options_(options), clock_(clock), cache_(cache), is_mounted_(std::move(is_mounted)) {}

uint64_t CacheLimits::Used() {
  const cachecore::EngineCounters counters = cache_->counters();
  const uint64_t filled = counters.bytes_filled - counters.bytes_culled;
  uint64_t coming = 0;
  for (const cachecore::RequestInfo& request : cache_->DescribeRequests()) {
    if (request.opcode == cachecore::wire::Opcode::kRead) coming += request.range.size();
  }
  return *allocated_ + (filled - filled_then_) + coming;
}

bool CacheLimits::IsKept(uint64_t used, const DiskSpace& disk) const {
  const uint64_t max = options_.max.Of(disk.total);
  return (max == 0 || used <= max) && disk.free >= options_.min_free.Of(disk.total);
}

uint64_t CacheLimits::AboveMax(uint64_t used, const DiskSpace& disk) const {
  const uint64_t max = options_.max.Of(disk.total);
  const uint64_t kept = max - max / kMarginParts;
  return max > 0 && used > kept ? used - kept : 0;
}

uint64_t CacheLimits::MissingFree(const DiskSpace& disk) const {
  const uint64_t min_free = options_.min_free.Of(disk.total);
  const uint64_t wanted = min_free + min_free / kMarginParts;
  return min_free > 0 && disk.free < wanted ? wanted - disk.free : 0;
}

void CacheLimits::SayOnce(const std::string& kind, const std::string& text) {
  if (said_.insert(kind).second) cache_->log().Warn(text);
}

void CacheLimits::Keep() {
  const cachecore::Duration now = clock_.Now();
  if (!options_.IsSet() || now < held_until_) return;
  const Result<DiskSpace> disk = cache_->disk_space();
  if (!disk.ok()) return;
  if (allocated_ && IsKept(Used(), *disk)) {
    said_.clear();
    return;
  }
  const cachecore::EngineCounters counters = cache_->counters();
  uint64_t allocated = 0;
  Result<std::vector<CullPart>> parts = cache_->culler().FindParts(is_mounted_, &allocated);
  if (!parts.ok()) {
    SayOnce("list", "the cache is not kept below its limit: " + parts.status().message());
    held_until_ = now + kHold;
    return;
  }
  allocated_ = allocated;
  filled_then_ = counters.bytes_filled - counters.bytes_culled;
  const uint64_t used = Used();
  if (IsKept(used, *disk)) return;
  Wanted wanted{AboveMax(used, *disk), MissingFree(*disk)};
  // Then another program needs the room, and has it whatever is culled here.
  if (wanted.free > allocated) KeepWhatIsUsed(*disk, wanted, &*parts);
  const uint64_t culled = CullParts(*parts, wanted);
  if (const uint64_t all = std::max(wanted.below_max, wanted.free);
      culled < all && !IsEnough(culled, wanted)) {
    held_until_ = now + kHold;
    if (!said_.contains(kUnreachable)) {
      SayOnce("above", "the cache is above its limit by " + std::to_string(all - culled) +
                           " bytes, which are in use");
    }
  }
  allocated_.reset();
}

void CacheLimits::KeepWhatIsUsed(const DiskSpace& disk, const Wanted& wanted,
                                 std::vector<CullPart>* parts) {
  SayOnce(kUnreachable,
          std::to_string(options_.min_free.Of(disk.total)) +
              " bytes of the file system cannot be left free: " + std::to_string(disk.free) +
              " are, and the cache has " + std::to_string(*allocated_) +
              "; it keeps what was used in the last " + std::to_string(kKeptInVain.count()) + " s");
  uint64_t needed = wanted.below_max;
  std::erase_if(*parts, [&needed](const CullPart& part) {
    const bool is_needed = needed > 0;  // For the other limit.
    needed -= std::min(needed, part.bytes);
    return !is_needed && part.age < kKeptInVain;
  });
}

// Another instance may have made room, too.
bool CacheLimits::IsEnough(uint64_t culled, const Wanted& wanted) const {
  if (culled < wanted.below_max) return false;
  if (culled >= wanted.free) return true;
  const Result<DiskSpace> disk = cache_->disk_space();
  return disk.ok() && MissingFree(*disk) == 0;
}

uint64_t CacheLimits::CullParts(const std::vector<CullPart>& parts, const Wanted& wanted) {
  const uint64_t most = std::max(wanted.below_max, wanted.free);
  uint64_t culled = 0;
  size_t failures = 0;
  std::unordered_set<cachecore::ObjectNumber> left;  // No more of them in this round.
  for (size_t i = 0; i < parts.size() && !IsEnough(culled, wanted);) {
    CullPart range = parts[i];
    for (++i; i < parts.size() && parts[i].object == range.object &&
              parts[i].range.begin == range.range.end && culled + range.bytes < most &&
              range.range.size() + parts[i].range.size() <= kLargestCull;
         ++i) {
      range.range.end = parts[i].range.end;
      range.bytes += parts[i].bytes;
    }
    if (left.contains(range.object)) continue;
    const Status status = cache_->culler().Cull(range.object, range.range);
    if (status.ok()) culled += range.bytes;
    // A read that waits for this part does not wait for the next one.
    if (status.ok() || status.error() == EBUSY) continue;
    left.insert(range.object);
    if (status.error() == ETIMEDOUT) continue;
    if (status.error() == ESTALE) {
      if (cache_->culler().RemoveStray(range.object).ok()) culled += range.bytes;
      continue;
    }
    SayOnce("cull", "culling " + range.range.ToString() + " of object " +
                        std::to_string(range.object.value) + ": " + status.message());
    // An object that is gone needs no record that says so.
    if (!range.is_mounted && cache_->culler().DropUnused(range.object, is_mounted_).ok()) {
      for (const CullPart& part : parts) culled += part.object == range.object ? part.bytes : 0;
      continue;
    }
    if (++failures == kMaxFailures) break;
  }
  return culled;
}

}  // namespace fusefs
