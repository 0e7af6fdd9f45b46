// OpenPinnedFile: opens a file for a user who cannot, and no other file that somebody put there.
//
// Model    a pin says whose file it is, and for an image which inode.  Images: openat2(2) with
//          RESOLVE_NO_SYMLINKS over the whole path.  Files of secrets may be behind symbolic links,
//          since a rotation may exchange one; each link must belong to root or to the file's owner.
//          A file is looked at before it is opened, so no FIFO and no device is ever opened.
// Errors   the errno and a sentence with the path: ELOOP a symbolic link that is not followed;
//          EINVAL no regular file; EISDIR; EPERM another owner; ESTALE another inode; others of
//          openat(2).
// Threads  thread-safe: no state.  Blocks on the disk or server that has the file.

#ifndef CACHECORE_PINNED_FILE_H_
#define CACHECORE_PINNED_FILE_H_

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "cachecore/status.h"
#include "cachecore/unique_fd.h"

namespace cachecore {

struct FilePin {
  enum class Links { kNone, kOfOwner };

  std::string path;  // Absolute; without symbolic links where Links is kNone.
  uid_t owner = 0;
  uint64_t inode = 0;  // 0: any.
  Links links = Links::kNone;
};

// For reading.
Result<UniqueFd> OpenPinnedFile(const FilePin& pin);
// `name` in the directory `directory`, which may be reached through links, unlike the file.
Result<UniqueFd> OpenRegularBeneath(const std::string& directory, const std::string& name);

}  // namespace cachecore

#endif  // CACHECORE_PINNED_FILE_H_
