// Where the cache is, for verbs that read one offline.
//
// Errors   CheckIsCache: what stat(2) said of the database, with the directory.

#ifndef CLI_CACHE_DIR_H_
#define CLI_CACHE_DIR_H_

#include <string>

#include "cachecore/status.h"
#include "cli/instance.h"

namespace cli {

// An instance's cache directory, as its settings have it.
std::string CacheDirOf(const Instance& instance);
cachecore::Status CheckIsCache(const std::string& cache_dir);

}  // namespace cli

#endif  // CLI_CACHE_DIR_H_
