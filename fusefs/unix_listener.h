// Listening on a Unix socket, and who is at the other end of one.
//
// Errors   the errno with the path; ENAMETOOLONG for a path that no socket address can hold.

#ifndef FUSEFS_UNIX_LISTENER_H_
#define FUSEFS_UNIX_LISTENER_H_

#include <sys/socket.h>
#include <sys/types.h>

#include <string>

#include "cachecore/status.h"
#include "cachecore/unique_fd.h"

namespace fusefs {

// A non-blocking listener.  A socket that an earlier life left at `path` is replaced.  The file
// belongs to `uid` (mode 0600), so that nobody else gets as far as connecting.
cachecore::Result<cachecore::UniqueFd> ListenUnix(const std::string& path, int type, uid_t uid);

cachecore::Result<ucred> PeerOf(int socket);

// Root, ourselves, or `uid`.
bool MayConnect(const ucred& peer, uid_t uid);

}  // namespace fusefs

#endif  // FUSEFS_UNIX_LISTENER_H_
