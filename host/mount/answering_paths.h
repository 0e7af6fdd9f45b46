// AnsweringPaths: refuses to use what lies on a file system that does not answer.
//
// Model    a path is looked up in a child first, which can be ended, and before any lock is held: a
//          look-up on a file system whose server is gone ends with SIGKILL alone, and other
//          commands would wait for the lock that long.
// Errors   ETIMEDOUT names what does not answer; EINTR as of the wait.  Callers judge
//          what a path leads to, and whether it exists.
// Threads  fork(2)s, as CallInChild.

#ifndef HOST_MOUNT_ANSWERING_PATHS_H_
#define HOST_MOUNT_ANSWERING_PATHS_H_

#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "host/images/image_source.h"

namespace host {

// `what` stands before the path in the error.
cachecore::Status CheckAnswers(const std::string& what, const std::string& path,
                               const cachecore::Deadline& deadline);
// What the arguments of a command name, with or without the word for its kind before it, as
// "oci-layout:DIR:TAG"; those that name nothing on this machine are passed over.
cachecore::Status CheckArgumentsAnswer(const std::vector<std::string>& arguments,
                                       const cachecore::Deadline& deadline);
// The files of this machine that `source` names.
cachecore::Status CheckAnswers(const ImageSource& source, const cachecore::Deadline& deadline);

}  // namespace host

#endif  // HOST_MOUNT_ANSWERING_PATHS_H_
