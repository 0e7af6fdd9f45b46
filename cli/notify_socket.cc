#include "cli/notify_socket.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <utility>

namespace cli {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

namespace {

constexpr int kReceiveBytes = 8 << 20;

}  // namespace

void NotifyDatagram::CloseFds() {
  while (fd_count > 0) fds[--fd_count].Reset();
}

Result<std::unique_ptr<NotifySocket>> NotifySocket::Bind(const std::string& path, uid_t uid) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return Status(ENAMETOOLONG, path + " is too long for a socket; use a shorter run directory");
  }
  path.copy(address.sun_path, path.size());
  unlink(path.c_str());
  UniqueFd socket_fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  int on = 1;
  setsockopt(socket_fd.get(), SOL_SOCKET, SO_RCVBUF, &kReceiveBytes, sizeof(int));
  // Asked for before bind: no datagram may arrive without the sender's uid.
  if (!socket_fd.valid() ||
      setsockopt(socket_fd.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) != 0 ||
      ::bind(socket_fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 ||
      chmod(path.c_str(), 0600) != 0 ||
      (uid != 0 && chown(path.c_str(), uid, static_cast<gid_t>(-1)) != 0)) {
    return Status::FromErrno(errno, "open the notify socket " + path);
  }
  return std::unique_ptr<NotifySocket>(new NotifySocket(path, uid, std::move(socket_fd)));
}

NotifySocket::NotifySocket(std::string path, uid_t uid, UniqueFd fd)
    : path_(std::move(path)), uid_(uid), fd_(std::move(fd)) {}

NotifySocket::~NotifySocket() { unlink(path_.c_str()); }

bool NotifySocket::Receive(NotifyDatagram* datagram) {
  alignas(cmsghdr) char
      control[CMSG_SPACE(sizeof(int) * kFdsPerMessageMax) + CMSG_SPACE(sizeof(ucred))];
  iovec data{datagram->bytes, sizeof(datagram->bytes)};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t size = recvmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (size < 0) return false;

  datagram->size = static_cast<size_t>(size);
  datagram->fd_count = 0;
  datagram->is_root = false;
  datagram->sender = 0;
  bool uid_ok = false;
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET) continue;
    if (c->cmsg_type == SCM_CREDENTIALS) {
      ucred sender;
      memcpy(&sender, CMSG_DATA(c), sizeof(sender));
      datagram->sender = sender.pid;
      datagram->is_root = sender.uid == 0 || sender.uid == geteuid();
      uid_ok = datagram->is_root || sender.uid == uid_;
    } else if (c->cmsg_type == SCM_RIGHTS) {
      size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (size_t i = 0; i < count; ++i) {
        int fd;
        memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
        datagram->fds[datagram->fd_count++].Reset(fd);
      }
    }
  }
  datagram->trusted = uid_ok && (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;
  return true;
}

}  // namespace cli
