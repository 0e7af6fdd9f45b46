// Since when what was written to a cache and not synced is known to be there.

#ifndef CACHECORE_STORE_BOOT_ID_H_
#define CACHECORE_STORE_BOOT_ID_H_

#include <string>

#include "cachecore/base/status.h"

namespace cachecore {

// Names the running kernel and the mounts of the file systems that hold the cache: a file system
// that failed and was mounted again has lost what was not synced, as in a power cut.  Kernels
// before 6.8 do not tell one mount from the next; there it names the kernel alone.
Result<std::string> ReadBootId(const std::string& cache_dir);

}  // namespace cachecore

#endif  // CACHECORE_STORE_BOOT_ID_H_
