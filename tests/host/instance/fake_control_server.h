// FakeControlServer: a control socket that answers as it is told.
//
// Threads  answers from a thread of its own, one connection after the other.
// Owns     the socket file and the thread, until it is destroyed.

#ifndef TESTS_HOST_INSTANCE_FAKE_CONTROL_SERVER_H_
#define TESTS_HOST_INSTANCE_FAKE_CONTROL_SERVER_H_

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "cachecore/base/unique_fd.h"

namespace host {

class FakeControlServer {
 public:
  // Turns a request line into the bytes to answer with; "" leaves the peer waiting, and nullopt
  // closes the connection, as a daemon that dies does.
  using Answer = std::function<std::optional<std::string>(const std::string& request)>;

  FakeControlServer(const std::string& path, Answer answer)
      : path_(path),
        answer_(std::move(answer)),
        listener_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)),
        stop_(eventfd(0, EFD_CLOEXEC)) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    if (bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        listen(listener_.get(), 16) != 0) {
      std::abort();
    }
    thread_ = std::thread([this] { Run(); });
  }
  ~FakeControlServer() {
    eventfd_write(stop_.get(), 1);
    thread_.join();
    unlink(path_.c_str());
  }

 private:
  // False once the server is to stop.
  bool WaitFor(int fd) {
    pollfd entries[] = {{fd, POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    poll(entries, 2, -1);
    return entries[1].revents == 0;
  }
  void Run() {
    while (WaitFor(listener_.get())) {
      const cachecore::UniqueFd peer(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      std::string line;
      char byte;
      while (WaitFor(peer.get()) && read(peer.get(), &byte, 1) == 1 && byte != '\n') line += byte;
      const std::optional<std::string> answer = answer_(line);
      if (!answer) continue;
      if (answer->empty()) WaitFor(stop_.get());
      (void)!send(peer.get(), answer->data(), answer->size(), MSG_NOSIGNAL);
    }
  }

  const std::string path_;
  const Answer answer_;
  const cachecore::UniqueFd listener_;
  const cachecore::UniqueFd stop_;
  std::thread thread_;
};

}  // namespace host

#endif  // TESTS_HOST_INSTANCE_FAKE_CONTROL_SERVER_H_
