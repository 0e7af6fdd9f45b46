// Files with secrets in them: read only if others may not.
//
// Errors   the errno and a sentence that names the file, what it is and the cure: ENOENT, EACCES
//          (this process can't read it, or all users can), EINVAL (no regular file, or over 1 MiB).
// Threads  thread-safe: no state.

#ifndef CACHECORE_ENVIRONMENT_SECRET_FILE_H_
#define CACHECORE_ENVIRONMENT_SECRET_FILE_H_

#include <string>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"

namespace cachecore {

// `what` names the kind of file, as in "client key".
Result<std::string> ReadSecretFile(const std::string& path, const std::string& what);
// The same of one that is open already: `path` is for the messages.
Result<std::string> ReadOpenSecret(const UniqueFd& file, const std::string& path,
                                   const std::string& what);
// A file that is no secret, to its end; at most 1 MiB.
Result<std::string> ReadOpenFile(const UniqueFd& file, const std::string& name);
// Whether ReadSecretFile would; for a caller that only reports it early.
Status CheckSecretFile(const std::string& path, const std::string& what);

}  // namespace cachecore

#endif  // CACHECORE_ENVIRONMENT_SECRET_FILE_H_
