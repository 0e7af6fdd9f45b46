// Image content: what is in an object that is to be mounted, and where in it.
//
// Model    EROFS is known by its superblock (host/content/image_kind.h).  Of what is none, libblkid
//          names the file system, or the partitions of a disk.  A part of the object is chosen by
//          its offset or by a partition's number.  What no file system is known to be in is a file.
// Units    bytes.
// Errors   EINVAL with a sentence that names the URL: an image that is truncated, a web page, a
//          file system that cannot be mounted, a partition that is not there.  The errors of reads
//          are those that `unreadable` makes of them; ETIMEDOUT at the deadline.
// Threads  no state; each call forks (cachecore/system/bounded_call.h).
// See      libblkid(3)

#ifndef HOST_CONTENT_IMAGE_CONTENT_H_
#define HOST_CONTENT_IMAGE_CONTENT_H_

#include <cstdint>
#include <functional>
#include <string>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "host/content/image_area.h"

namespace host {

// What the user says of it.
struct ContentChoice {
  std::string as = "auto";  // "auto", "file", or a type of host/content/image_file_system.h.
  uint64_t offset = 0;
  int partition = 0;  // 0: none.
};

struct ImageObject {
  std::string url;   // For messages.
  std::string path;  // Where it is read.
  uint64_t bytes = 0;
  // What the error of a read of it is to the user.
  std::function<cachecore::Status(const cachecore::Status&)> unreadable;
};

struct ImageContent {
  std::string kind;  // "file", or a type of host/content/image_file_system.h.
  ImageArea area;
  std::string head;  // The first bytes of the area; "" of a file that was called one.
  std::string note;  // What is worth to be told of a file; "" mostly.
};

cachecore::Result<ImageContent> FindContent(const ImageObject& object, const ContentChoice& choice,
                                            const cachecore::Deadline& deadline);

}  // namespace host

#endif  // HOST_CONTENT_IMAGE_CONTENT_H_
