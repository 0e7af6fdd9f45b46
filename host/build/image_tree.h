// The tree that an image is made of: how large it is.
//
// Errors   the errno of what can't be read, with its path.
// Threads  thread-safe: no state.
// Cost     one lstat(2) for each file.

#ifndef HOST_BUILD_IMAGE_TREE_H_
#define HOST_BUILD_IMAGE_TREE_H_

#include <cstdint>
#include <string>

#include "cachecore/base/status.h"

namespace host {

struct TreeSize {
  uint64_t files = 0;  // Of every kind; one with several names counts once.
  uint64_t bytes = 0;  // Of regular files, holes and all.
};
// ENAMETOOLONG for a name that mkfs.erofs can't take.
cachecore::Result<TreeSize> MeasureTree(const std::string& directory);

}  // namespace host

#endif  // HOST_BUILD_IMAGE_TREE_H_
