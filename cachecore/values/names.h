// Which names volumes and objects may have.  Both become names in the FUSE tree.

#ifndef CACHECORE_VALUES_NAMES_H_
#define CACHECORE_VALUES_NAMES_H_

#include <string_view>

#include "cachecore/values/limits.h"

namespace cachecore {

inline bool IsDotName(std::string_view name) { return name == "." || name == ".."; }

inline bool IsLegalVolumeKey(std::string_view key) {
  // "=": directories of single objects begin with it (fusefs/server/fuse_ops.cc).
  return !key.empty() && key[0] != '=' && key.size() <= kMaxKeySize && !IsDotName(key) &&
         key.find_first_of(std::string_view("/\0", 2)) == std::string_view::npos;
}

inline bool IsLegalCookie(std::string_view cookie) {
  return !cookie.empty() && cookie.size() <= kMaxCookieKeySize && !IsDotName(cookie);
}

}  // namespace cachecore

#endif  // CACHECORE_VALUES_NAMES_H_
