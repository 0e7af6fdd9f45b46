// Where the cache is, for verbs that read one offline.
//
// Errors   CheckIsCache: what stat(2) said of the database, with the directory.

#ifndef HOST_INSTANCE_CACHE_DIR_H_
#define HOST_INSTANCE_CACHE_DIR_H_

#include <string>

#include "cachecore/base/status.h"
#include "host/instance/instance.h"

namespace host {

// An instance's cache directory, as its settings have it.
std::string CacheDirOf(const Instance& instance);
cachecore::Status CheckIsCache(const std::string& cache_dir);

}  // namespace host

#endif  // HOST_INSTANCE_CACHE_DIR_H_
