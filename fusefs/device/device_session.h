// DeviceSession: one attached fetcher's connection.
//
// Model    packets of commands come in and are answered by one REPLY each; messages go out while
//          the peer has credits.  `resume` makes everything begin again, for another process with
//          the same connection.  What the socket does not take at once waits in a short queue, and
//          while anything waits there no further packet is read and no message chosen.
// Errors   Serve returns false when the connection is over.
// Threads  the device thread only.
// Owns     the socket.
// See      docs/protocol.md.

#ifndef FUSEFS_DEVICE_DEVICE_SESSION_H_
#define FUSEFS_DEVICE_DEVICE_SESSION_H_

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/cache/device_port.h"
#include "cachecore/protocol/wire.h"

namespace fusefs {

class DeviceSession {
 public:
  // Called with the fetcher that goes on with the connection, before that gets its HELLO.
  using OnResumed = std::function<void(pid_t pid, cachecore::Generation generation)>;

  DeviceSession(cachecore::UniqueFd socket, cachecore::DevicePort* port, OnResumed on_resumed);

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
  // `file`: what has come with the packet, or none.
  std::vector<int32_t> Handle(std::string_view packet, cachecore::UniqueFd file);
  uint32_t offered_caps() const;
  cachecore::Result<cachecore::wire::Command> Admit(std::string_view line, bool* done_here);
  void Flush();

  cachecore::UniqueFd socket_;
  cachecore::DevicePort* const port_;
  const OnResumed on_resumed_;
  std::vector<char> buffer_;
  std::deque<Packet> outgoing_;
  uint32_t caps_ = 0;
  uint32_t credits_ = 0;
  uint32_t packets_ = 0;    // Received so far.
  bool peer_gone_ = false;  // It takes no more packets; the commands that it has sent still count.
};

// Sends a greeting that refuses, best effort.
void RefuseFetcher(int socket, int error);

}  // namespace fusefs

#endif  // FUSEFS_DEVICE_DEVICE_SESSION_H_
