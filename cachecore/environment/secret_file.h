// Files with secrets in them: read only if others may not.
//
// Errors   the errno and a sentence that names the file, what it is and the cure: ENOENT, EACCES
// (it
//          can't be read by us, or can by everybody), EINVAL (no regular file, or over 1 MiB).
// Threads  thread-safe: no state.

#ifndef CACHECORE_SECRET_FILE_H_
#define CACHECORE_SECRET_FILE_H_

#include <string>

#include "cachecore/status.h"
#include "cachecore/unique_fd.h"

namespace cachecore {

// `what` names the kind of file, as in "client key".
Result<std::string> ReadSecretFile(const std::string& path, const std::string& what);
// The same of one that is open already: `path` is for the messages.
Result<std::string> ReadOpenSecret(const UniqueFd& file, const std::string& path,
                                   const std::string& what);
// A file that is no secret, to its end; at most 1 MiB.
Result<std::string> ReadOpenFile(const UniqueFd& file, const std::string& name);
// Whether ReadSecretFile would; for who only wants to say so early.
Status CheckSecretFile(const std::string& path, const std::string& what);

}  // namespace cachecore

#endif  // CACHECORE_SECRET_FILE_H_
