#include "fusefs/unix_listener.h"

#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace fusefs {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

Result<UniqueFd> ListenUnix(const std::string& path, int type, uid_t uid) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return Status(ENAMETOOLONG, "socket path " + path + ": longer than " +
                                    std::to_string(sizeof(address.sun_path) - 1) +
                                    " bytes; choose a shorter run directory");
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
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

}  // namespace fusefs
