// HttpSockets: libcurl's sockets and its timer, and the order in which they are served.
//
// Model    one poll finds the sockets that are ready; each Serve then moves on the one whose
//          request is the oldest.  The caller handles what has ended between two of them: a request
//          that takes the place of an ended one waits for its first byte while bytes of the others
//          are read.  Served all together, the transfers of a fast origin would end together.
// Threads  the event loop's, but for Wake, which any thread may call.
// Owns     the eventfd of Wake.  The multi handle is the caller's and ends before this.
// See      libcurl-multi(3), curl_multi_socket_action(3).

#ifndef FETCHER_HTTP_HTTP_SOCKETS_H_
#define FETCHER_HTTP_HTTP_SOCKETS_H_

#include <poll.h>

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <span>

#include "cachecore/base/clock.h"
#include "cachecore/base/unique_fd.h"

namespace fetcher {

using cachecore::Duration;

class HttpSockets {
 public:
  explicit HttpSockets(void* multi);
  HttpSockets(const HttpSockets&) = delete;
  HttpSockets& operator=(const HttpSockets&) = delete;

  // Waits for a socket, for `others` (whose revents it sets), for Wake, for libcurl's timer, or for
  // `timeout`.  Does not wait while sockets that were found ready have not been served.
  void Wait(std::span<pollfd> others, Duration timeout);
  // Serves the timer if it is due, and one socket; false if none was ready.
  bool Serve();
  // Ends Wait, once.
  void Wake();

 private:
  struct Interest {
    short events;
    uint64_t serial;  // Of the request that uses the socket.
  };

  static int OnSocket(void* easy, int fd, int what, void* self, void* of_socket);
  static int OnTimer(void* multi, long timeout_ms, void* self);

  void* const multi_;  // CURLM
  const cachecore::UniqueFd wake_;
  std::map<int, Interest> interests_;
  uint64_t next_serial_ = 0;
  std::optional<Duration> timer_;  // When libcurl wants to be called.
  std::deque<pollfd> ready_;       // Oldest request first.
};

}  // namespace fetcher

#endif  // FETCHER_HTTP_HTTP_SOCKETS_H_
