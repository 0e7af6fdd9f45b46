// Which names volumes and objects may have.  Both become names in our file system's tree.

#ifndef CACHECORE_NAMES_H_
#define CACHECORE_NAMES_H_

#include <string_view>

#include "cachecore/wire.h"

namespace cachecore {

inline bool IsDotName(std::string_view name) { return name == "." || name == ".."; }

inline bool IsLegalVolumeKey(std::string_view key) {
  // "=": directories of single objects begin with it (fusefs/fuse_ops.cc).
  return !key.empty() && key[0] != '=' && key.size() <= wire::kMaxKeySize && !IsDotName(key) &&
         key.find_first_of(std::string_view("/\0", 2)) == std::string_view::npos;
}

inline bool IsLegalCookie(std::string_view cookie) {
  return !cookie.empty() && cookie.size() <= wire::kMaxCookieKeySize && !IsDotName(cookie);
}

}  // namespace cachecore

#endif  // CACHECORE_NAMES_H_
