// WriteOutput: puts a text where a user's -o names a place.
//
// Model    a regular file, or none, is replaced as a whole: written beside it and renamed.  At the
//          end of a symbolic link that is its target; the link stays.  A FIFO or a device is
//          written into, and so is standard output under another name ("/dev/stdout").
// Errors   EISDIR for a directory; every Status names the path and, where there is one, the cure.
// Threads  thread-safe: no state.
// Crash    a reader of the file sees the old or the new text whole; what was written beside it may
//          stay.

#ifndef HOST_SERVICE_OUTPUT_FILE_H_
#define HOST_SERVICE_OUTPUT_FILE_H_

#include <sys/types.h>

#include <string>

#include "cachecore/base/status.h"

namespace host {

// An existing file keeps its mode and its owner.  A new one has `new_mode`, whatever the umask.
cachecore::Status WriteOutput(const std::string& path, const std::string& text, mode_t new_mode);

}  // namespace host

#endif  // HOST_SERVICE_OUTPUT_FILE_H_
