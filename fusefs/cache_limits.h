// CacheLimits: keeps the cache's data files below a size, and room free on their file system.
//
// Model    Keep looks at what is allocated, at what was filled since, and at what is on its way.
//          When a limit is passed it culls until both are kept with a margin, so that it does not
//          cull for each fill.  A limit that an operator has chosen (Choices) counts in place of
//          the flag.  Until mounts had time to come a size by default is kept at the cost of what a
//          mount shows already; room is left free by default, later, at the cost of objects alone
//          that no mount shows.  Whatever the limits, it
//          culls on a full disk for what is being fetched: objects that no mount shows, and what
//          was not used lately.
// Units    bytes that are allocated on the disk.
// Errors   logged, once a spell: what cannot be culled stays, and is tried again after a second.
//          An object that cannot be culled does not stop the others.  Where the store takes no
//          writes, whole objects go that no mount shows.
// Threads  Keep: one; the others may be called by any.
// Cost     a look costs no disk access while the limits are kept; culling lists the data files.
// Crash    nothing of its own.
// See      Culler; docs/design.md "Culling".

#ifndef FUSEFS_CACHE_LIMITS_H_
#define FUSEFS_CACHE_LIMITS_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "cachecore/base/clock.h"
#include "cachecore/base/mutex.h"
#include "cachecore/base/parse_text.h"
#include "cachecore/cache/cache.h"

namespace fusefs {

// 0 is no limit.
struct CacheLimitOptions {
  cachecore::SizeOrPercent max;
  cachecore::SizeOrPercent min_free;
  bool max_by_default = false;  // Nobody has asked for it.
  bool min_free_by_default = false;
  bool applies = true;  // False: nothing is culled.

  bool IsSet() const { return max.Of(UINT64_MAX) > 0 || min_free.Of(UINT64_MAX) > 0; }
  bool IsAskedFor() const {
    return (max.Of(UINT64_MAX) > 0 && !max_by_default) ||
           (min_free.Of(UINT64_MAX) > 0 && !min_free_by_default);
  }
  bool operator==(const CacheLimitOptions&) const = default;
};

class CacheLimits {
 public:
  CacheLimits(CacheLimitOptions options, const cachecore::Clock& clock, cachecore::Cache* cache,
              cachecore::Culler::IsMounted is_mounted);

  // No mount is there yet, and those that come need what is present: for a while nothing is culled
  // for what is being fetched, and nothing without a mount for a limit by default.  Before Keep.
  void AwaitMounts();
  void Keep() EXCLUDES(mu_);
  // What counts now: the flags, and what was chosen in their place.
  CacheLimitOptions Now() const;
  // The limits, what they are limits of, and why they are not kept, for people and programs.
  nlohmann::json Describe() EXCLUDES(mu_);

 private:
  // Bytes to be culled, for each limit: with a margin.
  struct Wanted {
    uint64_t below_max;
    uint64_t free;
  };
  // What was found in the data files.
  struct Found {
    std::vector<cachecore::CullPart> parts;
    uint64_t pinned = 0;
  };

  void TakeLimits();
  cachecore::Result<Found> Find();
  // Culls for what is being fetched, where the disk has no room for it.  True: it has none.
  bool MakeRoomOnFullDisk(const cachecore::DiskSpace& disk);
  // What the limits are now, in bytes; 0 is none.
  uint64_t Max(const cachecore::DiskSpace& disk) const;
  uint64_t MinFree(const cachecore::DiskSpace& disk) const;
  // The size by default may not cost what mounts that come back need.
  bool AwaitsMounts() const;
  // Both, from what all files of the disk take: what is on its way need not be known.
  bool AreFar(const cachecore::DiskSpace& disk) const;
  bool IsKept(uint64_t used, const cachecore::DiskSpace& disk) const;
  uint64_t AboveMax(uint64_t used, const cachecore::DiskSpace& disk) const;
  uint64_t MissingFree(const cachecore::DiskSpace& disk) const;
  // Logs it once in a spell, which ends when the limits are kept.
  void SayOnce(const std::string& kind, const std::string& text) EXCLUDES(mu_);
  void EndSpell() EXCLUDES(mu_);
  // For a file system that is full of what others have: takes what was used lately out of `parts`.
  void KeepWhatIsUsed(const cachecore::DiskSpace& disk, const Wanted& wanted, Found* found);
  // Says that a limit is not kept, and looks again later.
  void GiveUp(uint64_t culled, const Wanted& wanted, const Found& found);
  bool IsEnough(uint64_t culled, const Wanted& wanted) const;
  // Bytes that are being fetched.
  uint64_t Coming();
  // Whether the disk is full and its fetcher says of a read why it takes long.
  bool WaitsForRoom(const cachecore::DiskSpace& disk) const;
  // Estimates what is allocated, or will be when all that was asked for has come; at most what all
  // files of the disk take.
  uint64_t Used(const cachecore::DiskSpace& disk);
  // Parts of one object that lie beside each other; where that is EBUSY, each by itself.
  cachecore::Status CullTogether(std::span<const cachecore::CullPart> parts, const Wanted& wanted,
                                 uint64_t* culled);
  uint64_t CullParts(const std::vector<cachecore::CullPart>& parts, const Wanted& wanted);

  const CacheLimitOptions flags_;
  const cachecore::Clock& clock_;
  cachecore::Cache* const cache_;
  const cachecore::Culler::IsMounted is_mounted_;
  CacheLimitOptions options_;             // What counts, as of the last Keep.
  std::optional<uint64_t> allocated_;     // When it was last looked at.
  uint64_t filled_then_ = 0;              // The bytes filled, less those culled, at that time.
  std::set<std::string> said_;            // In this spell above a limit.
  cachecore::Duration full_from_{0};      // It is not looked before whether the disk is full.
  cachecore::Duration held_until_{0};     // No look before: what is above the limit was in use.
  cachecore::Duration default_from_{0};   // No limit by default counts before,
  cachecore::Duration min_free_from_{0};  // nor this one of them.
  cachecore::Mutex mu_;
  std::string trouble_ GUARDED_BY(mu_);  // Why the limits are not kept; "" when they are.
};

}  // namespace fusefs

#endif  // FUSEFS_CACHE_LIMITS_H_
