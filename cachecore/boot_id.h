// Which running kernel this is.

#ifndef CACHECORE_BOOT_ID_H_
#define CACHECORE_BOOT_ID_H_

#include <string>

#include "cachecore/status.h"

namespace cachecore {

// The machine's boot id.
Result<std::string> ReadBootId();

}  // namespace cachecore

#endif  // CACHECORE_BOOT_ID_H_
