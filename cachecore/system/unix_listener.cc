#include "cachecore/system/unix_listener.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "cachecore/base/unix_socket.h"

namespace cachecore {

Result<UniqueFd> ListenUnix(const std::string& path, int type, uid_t uid) {
  ASSIGN_OR_RETURN(const sockaddr_un address, UnixAddress(path, "choose a shorter run directory"));
  UniqueFd socket_fd(socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket_fd.valid()) return Status::FromErrno(errno, "socket");
  unlink(path.c_str());
  const mode_t mask = umask(0177);
  const int bound =
      bind(socket_fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  const int error = errno;
  umask(mask);
  if (bound != 0) return Status::FromErrno(error, "binding " + path);
  if (uid != geteuid() && chown(path.c_str(), uid, static_cast<gid_t>(-1)) != 0) {
    return Status::FromErrno(errno, "giving " + path + " to uid " + std::to_string(uid));
  }
  if (listen(socket_fd.get(), SOMAXCONN) != 0) {
    return Status::FromErrno(errno, "listening on " + path);
  }
  return socket_fd;
}

Result<ucred> PeerOf(int socket) {
  ucred peer = {};
  socklen_t size = sizeof(peer);
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return Status::FromErrno(errno, "SO_PEERCRED");
  }
  return peer;
}

bool MayConnect(const ucred& peer, uid_t uid) {
  return peer.uid == 0 || peer.uid == geteuid() || peer.uid == uid;
}

}  // namespace cachecore
