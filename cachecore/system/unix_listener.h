// Listening on a Unix socket, and which process is at the other end of one.
//
// Errors   the errno with the path; ENAMETOOLONG for a path that no socket address can hold.

#ifndef CACHECORE_SYSTEM_UNIX_LISTENER_H_
#define CACHECORE_SYSTEM_UNIX_LISTENER_H_

#include <sys/socket.h>
#include <sys/types.h>

#include <string>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"

namespace cachecore {

// A non-blocking listener.  A socket that an earlier process left at `path` is replaced.  The file
// belongs to `uid` (mode 0600), so that no other user can connect.
Result<UniqueFd> ListenUnix(const std::string& path, int type, uid_t uid);

Result<ucred> PeerOf(int socket);

// Root, ourselves, or `uid`.
bool MayConnect(const ucred& peer, uid_t uid);

}  // namespace cachecore

#endif  // CACHECORE_SYSTEM_UNIX_LISTENER_H_
