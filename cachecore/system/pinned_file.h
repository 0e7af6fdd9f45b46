// OpenPinnedFile: opens a file for a user that cannot, and refuses another file that was put in its
// place.
//
// Model    a pin says whose file it is, and for an image which inode.  Images: openat2(2) with
//          RESOLVE_NO_SYMLINKS over the whole path.  Files of secrets may be behind symbolic links,
//          since a rotation may exchange one; OpenTrustedPath follows those of root and of the
//          owner.  A file is looked at before it is opened, so no FIFO and no device is ever
//          opened.
// Errors   the errno and a sentence with the path: ELOOP or EACCES a link that is not followed;
//          EINVAL no regular file; EISDIR; EPERM another owner; ESTALE another inode; others of
//          openat(2).
// Threads  thread-safe: no state.  Blocks on the disk or server that has the file.
// See      cachecore/system/trusted_path.h

#ifndef CACHECORE_SYSTEM_PINNED_FILE_H_
#define CACHECORE_SYSTEM_PINNED_FILE_H_

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"

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

#endif  // CACHECORE_SYSTEM_PINNED_FILE_H_
