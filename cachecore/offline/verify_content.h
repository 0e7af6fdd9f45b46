// CompareWithFile: whether what is claimed present of an object has the right bytes.

#ifndef CACHECORE_OFFLINE_VERIFY_CONTENT_H_
#define CACHECORE_OFFLINE_VERIFY_CONTENT_H_

#include <cstdint>
#include <string>

#include "cachecore/base/status.h"
#include "cachecore/values/presence_map.h"

namespace cachecore {

// Compares every present range of the data file at `path` with the file at `right`, which must be
// of the object's size.  EBADMSG names the first block that differs and how many do.  Adds to
// `compared_bytes` what was compared.
Status CompareWithFile(const std::string& path, const std::string& right,
                       const PresenceMap& present, uint64_t* compared_bytes);

}  // namespace cachecore

#endif  // CACHECORE_OFFLINE_VERIFY_CONTENT_H_
