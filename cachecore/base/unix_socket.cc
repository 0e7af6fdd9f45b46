#include "cachecore/base/unix_socket.h"

#include <glog/logging.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstring>

namespace cachecore {
namespace {

constexpr size_t kControlMax = CMSG_SPACE(kPacketFdsMax * sizeof(int)) + CMSG_SPACE(sizeof(ucred));

void TakeDescriptors(const cmsghdr* part, std::span<UniqueFd> fds, ReceivedPacket* packet) {
  const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
  for (size_t i = 0; i < count; ++i) {
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(fd));
    UniqueFd owned(fd);
    if (packet->fd_count < fds.size()) {
      fds[packet->fd_count++] = std::move(owned);
    } else {
      packet->has_more = true;
    }
  }
}

}  // namespace

Result<sockaddr_un> UnixAddress(const std::string& path, const std::string& cure) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return Status(ENAMETOOLONG, path + " is too long for a Unix socket, which takes " +
                                    std::to_string(sizeof(address.sun_path) - 1) + " bytes; " +
                                    cure);
  }
  path.copy(address.sun_path, path.size());
  return address;
}

ssize_t SendWithDescriptors(int socket, std::string_view bytes, std::span<const int> fds,
                            int flags) {
  CHECK_LE(fds.size(), kPacketFdsMax);
  iovec data = {const_cast<char*>(bytes.data()), bytes.size()};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[kControlMax] = {};
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size_bytes());
  }
  ssize_t sent = -1;
  do {
    sent = sendmsg(socket, &message, flags | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent;
}

ssize_t SendWithDescriptor(int socket, std::string_view bytes, int fd, int flags) {
  return SendWithDescriptors(socket, bytes, {&fd, fd >= 0 ? size_t{1} : size_t{0}}, flags);
}

ReceivedPacket ReceiveWithDescriptors(int socket, std::span<char> buffer, std::span<UniqueFd> fds,
                                      int flags) {
  CHECK_LE(fds.size(), kPacketFdsMax);
  iovec data = {buffer.data(), buffer.size()};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[kControlMax];
  message.msg_control = control;
  // No more room than is asked for: what else a peer sends, the kernel closes.
  const size_t room = CMSG_SPACE(fds.size_bytes()) + CMSG_SPACE(sizeof(ucred));
  ReceivedPacket packet;
  do {
    message.msg_controllen = room;
    packet.size = recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
  } while (packet.size < 0 && errno == EINTR);
  if (packet.size < 0) return packet;
  packet.flags = message.msg_flags;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET) continue;
    if (part->cmsg_type == SCM_RIGHTS) TakeDescriptors(part, fds, &packet);
    if (part->cmsg_type == SCM_CREDENTIALS) {
      std::memcpy(&packet.sender.emplace(), CMSG_DATA(part), sizeof(ucred));
    }
  }
  return packet;
}

}  // namespace cachecore
