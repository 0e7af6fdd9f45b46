// DeviceSession: one attached fetcher's connection.
//
// Model    packets of commands come in and are answered by one REPLY each; messages go out while
// the
//          peer has credits.  `resume` makes everything begin again, for another process with the
//          same connection.  What the socket does not take at once waits in a short queue, and
//          while anything waits there no further packet is read and no message chosen.
// Errors   Serve returns false when the connection is over.
// Threads  the device thread only.
// Owns     the socket.
// See      docs/protocol.md.

#ifndef FUSEFS_DEVICE_SESSION_H_
#define FUSEFS_DEVICE_SESSION_H_

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "cachecore/cache.h"
#include "cachecore/status.h"
#include "cachecore/unique_fd.h"
#include "cachecore/wire.h"

namespace fusefs {

class DeviceSession {
 public:
  // Told who goes on with the connection, before the peer is told that it may.
  using OnHeir = std::function<void(pid_t pid, cachecore::Generation generation)>;

  DeviceSession(cachecore::UniqueFd socket, cachecore::Cache* cache, OnHeir on_heir);

  int fd() const { return socket_.get(); }
  // What to poll the socket for.
  short wanted_events() const;
  // True once the peer has closed its end, whatever it had said before.
  bool HungUp() const;
  // Greets the peer.
  void Hello(cachecore::Generation generation);
  // Handles what the socket is ready for, then sends what may be sent.
  bool Serve(short events);
  // Sends messages while there are credits.
  bool Pump();

 private:
  struct Packet {
    std::string bytes;
    cachecore::UniqueFd fd;
  };

  bool Receive();
  bool Resume(uint32_t token, pid_t pid);
  std::vector<int32_t> Handle(std::string_view packet);
  cachecore::Result<cachecore::wire::Command> Admit(std::string_view line, bool* done_here);
  void Flush();

  cachecore::UniqueFd socket_;
  cachecore::Cache* const cache_;
  const OnHeir on_heir_;
  std::vector<char> buffer_;
  std::deque<Packet> outgoing_;
  uint32_t caps_ = 0;
  uint32_t credits_ = 0;
  uint32_t packets_ = 0;  // Received so far.
  bool deaf_ = false;     // The peer takes nothing any more; what it has said still counts.
};

// Sends a greeting that refuses, best effort.
void RefuseFetcher(int socket, int error);

}  // namespace fusefs

#endif  // FUSEFS_DEVICE_SESSION_H_
