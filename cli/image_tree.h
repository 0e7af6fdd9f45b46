// The tree that an image is made of: how large it is, and times that nobody chose.
//
// Errors   the errno of what can't be read, with its path.
// Threads  thread-safe: no state.
// Cost     one lstat(2) for each file.

#ifndef CLI_IMAGE_TREE_H_
#define CLI_IMAGE_TREE_H_

#include <cstdint>
#include <ctime>
#include <string>

#include "cachecore/status.h"

namespace cli {

struct TreeSize {
  uint64_t files = 0;  // Of every kind; one with several names counts once.
  uint64_t bytes = 0;  // Of regular files, holes and all.
};
// ENAMETOOLONG for a name that mkfs.erofs can't take.
cachecore::Result<TreeSize> MeasureTree(const std::string& directory);

// The time that the file system which holds `directory` gives to what is made there now.
cachecore::Result<timespec> FileSystemTime(const std::string& directory);
// Sets the time of every directory changed between the two to 1970: it was made because a name was
// below it, and no archive says anything of it.
cachecore::Status SettleDirectoryTimes(const std::string& directory, const timespec& from,
                                       const timespec& to);

}  // namespace cli

#endif  // CLI_IMAGE_TREE_H_
