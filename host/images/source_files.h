// What of a source lies on this machine's disks, as it is when the source is mounted.
//
// Model    the fetcher runs as a user of its own: a process of root opens for it just what is noted
//          here.  Objects of file origins are noted with the path that their URL leads to now,
//          their owner and, where no digest says what they must be, their inode; files of
//          certificates and secrets with their owner, since they may be rotated.  What is not
//          there is noted as root's, to be opened once it is.
// Errors   EACCES: a link of another user on the way to an object.
// Threads  thread-safe: no state.
// See      docs/sources.md "Files of this machine"; cachecore/system/pinned_file.h, trusted_path.h

#ifndef HOST_IMAGES_SOURCE_FILES_H_
#define HOST_IMAGES_SOURCE_FILES_H_

#include <nlohmann/json.hpp>

#include "cachecore/base/status.h"
#include "host/images/image_source.h"

namespace host {

// The source file's "files".
cachecore::Result<nlohmann::json> FilesOfSource(const ImageSource& source);

}  // namespace host

#endif  // HOST_IMAGES_SOURCE_FILES_H_
