// NotifySocket: the datagram socket at which one service talks to its supervisor.
//
// Model    the sender is known by the socket; its uid and pid come from the kernel with each
//          datagram.  The socket's file belongs to `uid`, who may write to it.
// Errors   Bind: ENAMETOOLONG, or the errno of the path that can't be used.
// Threads  one thread only.
// Owns     the socket and its path, which it takes from whatever was there and removes at the end.
// Cost     Peek and Drop allocate nothing.

#ifndef HOST_NOTIFY_NOTIFY_SOCKET_H_
#define HOST_NOTIFY_NOTIFY_SOCKET_H_

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/base/unix_socket.h"
#include "host/notify/notify_message.h"

namespace host {

inline constexpr size_t kFdsPerMessageMax = cachecore::kPacketFdsMax;

// One datagram with what came along.
struct NotifyDatagram {
  char bytes[kNotifyDatagramBytesMax + 1];
  size_t size = 0;
  bool trusted = false;  // Whole, and from root, from our own uid or from the socket's.
  bool is_root = false;  // Or from our own uid.
  pid_t sender = 0;
  std::array<cachecore::UniqueFd, kFdsPerMessageMax> fds;
  size_t fd_count = 0;

  std::string_view text() const { return {bytes, size}; }
  void CloseFds();
};

class NotifySocket {
 public:
  static cachecore::Result<std::unique_ptr<NotifySocket>> Bind(const std::string& path,
                                                               uid_t uid = 0);
  ~NotifySocket();
  NotifySocket(const NotifySocket&) = delete;
  NotifySocket& operator=(const NotifySocket&) = delete;

  // The next datagram, with descriptors of its own, which stays until Drop.  False when nothing
  // waits.  REQUIRES: `datagram` holds no descriptors.
  bool Peek(NotifyDatagram* datagram);
  void Drop();

  int fd() const { return fd_.get(); }
  const std::string& path() const { return path_; }

 private:
  NotifySocket(std::string path, uid_t uid, cachecore::UniqueFd fd);

  const std::string path_;
  const uid_t uid_;
  cachecore::UniqueFd fd_;
};

}  // namespace host

#endif  // HOST_NOTIFY_NOTIFY_SOCKET_H_
