// CacheList: the objects of an instance's cache, as `holdfast cache` shows and names them.
//
// Model    what the daemon says, or what the records of a cache without a daemon say, joined with
//          the mounts and the sources of the instance.
// Units    bytes; times in seconds since 1970.
// Errors   ENOENT, ECONNREFUSED: no daemon serves the instance, with what to do about it.  EACCES:
//          not ours to ask.
// Threads  one thread only.
// See      holdfast(1) "holdfast cache ls"

#ifndef HOST_CACHE_CACHE_LIST_H_
#define HOST_CACHE_CACHE_LIST_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "host/instance/instance.h"

namespace host {

struct CachedObject {
  std::string volume;
  std::string object;
  std::string url = "";  // As it was given to a mount, or as its source has it; "" when not known.
  uint64_t size_bytes = 0;
  uint64_t present_bytes = 0;
  uint64_t allocated_bytes = 0;  // Of the disk.
  bool is_pinned = false;
  bool is_granted = false;  // A mount shows it, or is just being made.
  int64_t used_unix_s = 0;
  std::vector<std::string> mount_points = {};

  std::string Name() const { return volume + "/" + object; }
  bool IsMounted() const { return is_granted || !mount_points.empty(); }
};

struct CacheList {
  std::vector<CachedObject> objects;  // What was used last first.
  nlohmann::json limits;              // As the daemon describes them; empty without one.
};

cachecore::Result<CacheList> AskCacheList(const Instance& instance,
                                          const cachecore::Deadline& deadline);
// Adds mounts and URLs, and sorts.
void CompleteCacheList(const Instance& instance, CacheList* list);
// The object that a mount point, a URL or VOLUME/OBJECT names.  ENOENT; EINVAL names the objects
// when there are several.
cachecore::Result<CachedObject> FindCached(const Instance& instance, const CacheList& list,
                                           const std::string& name);

nlohmann::json CacheListToJson(const CacheList& list);
// For people; ends with a newline.
std::string CacheListToText(const CacheList& list, int64_t now_unix_s);
std::string LimitsToText(const nlohmann::json& limits);

}  // namespace host

#endif  // HOST_CACHE_CACHE_LIST_H_
