#include "host/notify/notify_socket.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "cachecore/base/unix_socket.h"

namespace host {

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
  ASSIGN_OR_RETURN(const sockaddr_un address,
                   cachecore::UnixAddress(path, "use a shorter run directory"));
  unlink(path.c_str());
  UniqueFd socket_fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  int on = 1;
  setsockopt(socket_fd.get(), SOL_SOCKET, SO_RCVBUF, &kReceiveBytes, sizeof(int));
  // Asked for before bind: no datagram may arrive without the sender's uid.
  if (!socket_fd.valid() ||
      setsockopt(socket_fd.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) != 0 ||
      ::bind(socket_fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      chmod(path.c_str(), 0600) != 0) {
    return Status::FromErrno(errno, "open the notify socket " + path);
  }
  if (uid != 0 && chown(path.c_str(), uid, static_cast<gid_t>(-1)) != 0) {
    const Status why = Status::FromErrno(errno, "give " + path + " to uid " + std::to_string(uid));
    if (why.error() != EPERM) return why;
    return Status(EPERM, why.message() + ": this root lacks the capability CAP_CHOWN");
  }
  return std::unique_ptr<NotifySocket>(new NotifySocket(path, uid, std::move(socket_fd)));
}

NotifySocket::NotifySocket(std::string path, uid_t uid, UniqueFd fd)
    : path_(std::move(path)), uid_(uid), fd_(std::move(fd)) {}

NotifySocket::~NotifySocket() { unlink(path_.c_str()); }

bool NotifySocket::Peek(NotifyDatagram* datagram) {
  const cachecore::ReceivedPacket packet = cachecore::ReceiveWithDescriptors(
      fd_.get(), datagram->bytes, datagram->fds, MSG_DONTWAIT | MSG_PEEK);
  if (packet.size < 0) return false;
  datagram->size = static_cast<size_t>(packet.size);
  datagram->fd_count = packet.fd_count;
  datagram->sender = packet.sender ? packet.sender->pid : 0;
  datagram->is_root = packet.sender && (packet.sender->uid == 0 || packet.sender->uid == geteuid());
  const bool uid_ok = datagram->is_root || (packet.sender && packet.sender->uid == uid_);
  datagram->trusted = uid_ok && (packet.flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;
  return true;
}

// Without room for them, the kernel closes the datagram's descriptors.
void NotifySocket::Drop() { recv(fd_.get(), nullptr, 0, MSG_DONTWAIT | MSG_TRUNC); }

}  // namespace host
