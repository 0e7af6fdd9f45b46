// CacheChange: what `holdfast cache` changes: limits, pins, and what is removed.
//
// Model    each is asked of the daemon, again when it dies meanwhile: all may be asked twice.  The
//          source file of a volume goes with the volume's last object.
// Units    bytes.
// Errors   EBUSY: it is mounted, in use or pinned, with the cure.  Those of CacheList.
// Threads  one thread only.
// Crash    a removal that was cut short is finished by the next one of the same name.
// See      holdfast(1) "holdfast cache rm"

#ifndef HOST_CACHE_CACHE_CHANGE_H_
#define HOST_CACHE_CACHE_CHANGE_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "host/cache/cache_list.h"
#include "host/instance/instance.h"

namespace host {

// `max`, `min_free`: "" leaves it.  Returns the limits as they are then.
cachecore::Result<nlohmann::json> ChangeLimits(const Instance& instance, const std::string& max,
                                               const std::string& min_free,
                                               const cachecore::Deadline& deadline);
cachecore::Status SetPinned(const Instance& instance, const CachedObject& object, bool pinned,
                            const cachecore::Deadline& deadline);

// Has the daemon forget the mounts that were detached in use and are used no more: their objects
// are as those that no mount shows.  REQUIRES: LockInstance.
void ReleaseUnused(const Instance& instance, CacheList* list);

struct RemoveOptions {
  bool bytes_only = false;
  bool unless_pinned = false;
};
struct Removal {
  CachedObject object;
  cachecore::Status status;
  uint64_t removed_bytes = 0;
  uint64_t left_bytes = 0;
};
// One after the other.  REQUIRES: LockInstance.
std::vector<Removal> RemoveObjects(const Instance& instance,
                                   const std::vector<CachedObject>& objects,
                                   const RemoveOptions& options,
                                   const cachecore::Deadline& deadline);

}  // namespace host

#endif  // HOST_CACHE_CACHE_CHANGE_H_
