// MakeErofsCanonical: takes out of an image what depends on where and when it was made.
//
// Model    mkfs.erofs stores extended attributes in the order in which the file system that holds
//          the tree lists them, and each kind of file system, and each history of a file, has its
//          own. Their order means nothing, so it is made the same: by name, within each inode, in
//          place. The superblock's time is set to 0; mkfs.erofs can only be told one that bounds
//          all others.
// Errors   EBADMSG when the image isn't one that mkfs.erofs makes.
// Threads  one thread only: it writes the file.
// Cost     two small reads for each inode.
// See      Linux fs/erofs/erofs_fs.h

#ifndef HOST_BUILD_EROFS_CANONICAL_H_
#define HOST_BUILD_EROFS_CANONICAL_H_

#include <string>

#include "cachecore/base/status.h"

namespace host {

// `path` is an image without a checksum in its superblock.
cachecore::Status MakeErofsCanonical(const std::string& path);

}  // namespace host

#endif  // HOST_BUILD_EROFS_CANONICAL_H_
