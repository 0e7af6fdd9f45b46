// Unix sockets: addresses of socket files, and packets with descriptors beside their bytes.
//
// Errors   UnixAddress: ENAMETOOLONG.  The others: -1 and errno, as sendmsg(2) and recvmsg(2);
//          never EINTR.
// Threads  thread-safe: no state.
// Owns     what is sent stays the caller's; what is received is the caller's.
// Cost     nothing is allocated, but by UnixAddress for an error.
// See      unix(7)

#ifndef CACHECORE_BASE_UNIX_SOCKET_H_
#define CACHECORE_BASE_UNIX_SOCKET_H_

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"

namespace cachecore {

// The most descriptors that one packet carries: the kernel's SCM_MAX_FD.
inline constexpr size_t kPacketFdsMax = 253;

// `cure` follows the error's sentence.
Result<sockaddr_un> UnixAddress(const std::string& path,
                                const std::string& cure = "choose a shorter one");

// At most kPacketFdsMax descriptors.  `flags`: MSG_NOSIGNAL is set in any case.
ssize_t SendWithDescriptors(int socket, std::string_view bytes, std::span<const int> fds,
                            int flags = 0);
// `fd` -1: without one.
ssize_t SendWithDescriptor(int socket, std::string_view bytes, int fd, int flags = 0);

struct ReceivedPacket {
  ssize_t size = -1;
  int flags = 0;          // MSG_TRUNC, MSG_CTRUNC.
  size_t fd_count = 0;    // Of those asked for.
  bool has_more = false;  // More descriptors came than were asked for: they are closed.
  std::optional<ucred> sender = std::nullopt;  // Where the socket has SO_PASSCRED.
};
// `fds` are set from the first on; descriptors are close-on-exec.  For `fds`, kPacketFdsMax at
// most.
ReceivedPacket ReceiveWithDescriptors(int socket, std::span<char> buffer, std::span<UniqueFd> fds,
                                      int flags = 0);

}  // namespace cachecore

#endif  // CACHECORE_BASE_UNIX_SOCKET_H_
