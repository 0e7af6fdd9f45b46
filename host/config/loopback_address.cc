#include "host/config/loopback_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <charconv>

namespace host {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

namespace {

constexpr int kBacklog = 64;

struct LoopbackAddress {
  sockaddr_storage storage = {};
  socklen_t size = 0;
  uint16_t port = 0;
};

Result<LoopbackAddress> ParseLoopback(const std::string& text) {
  const Status refused(EINVAL, text +
                                   " is not a port of this machine's loopback; give "
                                   "127.0.0.1:PORT or [::1]:PORT.  A proxy with passwords can "
                                   "serve other machines");
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return refused;
  uint16_t port = 0;
  const char* const end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data() + colon + 1, end, port);
  if (error != std::errc() || stopped != end || port == 0) return refused;
  std::string host = text.substr(0, colon);
  LoopbackAddress address = {.port = port};
  auto* const v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
  if (inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    if (ntohl(v4->sin_addr.s_addr) >> 24 != 127) return refused;
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    address.size = sizeof(*v4);
    return address;
  }
  if (host != "[::1]") return refused;
  auto* const v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
  v6->sin6_family = AF_INET6;
  v6->sin6_addr = in6addr_loopback;
  v6->sin6_port = htons(port);
  address.size = sizeof(*v6);
  return address;
}

}  // namespace

Status CheckLoopback(const std::string& address) { return ParseLoopback(address).status(); }

bool HasPortOfRoot(const std::string& address) {
  const Result<LoopbackAddress> parsed = ParseLoopback(address);
  return parsed.ok() && parsed->port < IPPORT_RESERVED;
}

Result<UniqueFd> ListenOnLoopback(const std::string& address) {
  ASSIGN_OR_RETURN(const LoopbackAddress parsed, ParseLoopback(address));
  UniqueFd listener(
      socket(parsed.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int one = 1;
  if (!listener.valid() ||
      setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
      bind(listener.get(), reinterpret_cast<const sockaddr*>(&parsed.storage), parsed.size) != 0 ||
      listen(listener.get(), kBacklog) != 0) {
    return Status::FromErrno(errno, "listening on " + address);
  }
  return listener;
}

}  // namespace host
