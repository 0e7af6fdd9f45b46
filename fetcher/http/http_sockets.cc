#include "fetcher/http/http_sockets.h"

#include <curl/curl.h>
#include <glog/logging.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <vector>

namespace fetcher {
namespace {

Duration Now() { return cachecore::Clock::Monotonic().Now(); }

}  // namespace

HttpSockets::HttpSockets(void* multi)
    : multi_(multi), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  PCHECK(wake_.valid()) << "eventfd";
  curl_multi_setopt(multi_, CURLMOPT_SOCKETFUNCTION, &OnSocket);
  curl_multi_setopt(multi_, CURLMOPT_SOCKETDATA, this);
  curl_multi_setopt(multi_, CURLMOPT_TIMERFUNCTION, &OnTimer);
  curl_multi_setopt(multi_, CURLMOPT_TIMERDATA, this);
}

int HttpSockets::OnSocket(void*, int fd, int what, void* self, void*) {
  auto* sockets = static_cast<HttpSockets*>(self);
  if (what == CURL_POLL_REMOVE) {
    sockets->interests_.erase(fd);
    std::erase_if(sockets->ready_, [fd](const pollfd& ready) { return ready.fd == fd; });
    return 0;
  }
  // A connection that a later request takes over was removed in between.
  const auto [interest, is_new] = sockets->interests_.try_emplace(fd);
  if (is_new) interest->second.serial = sockets->next_serial_++;
  interest->second.events = static_cast<short>(((what & CURL_POLL_IN) != 0 ? POLLIN : 0) |
                                               ((what & CURL_POLL_OUT) != 0 ? POLLOUT : 0));
  return 0;
}

int HttpSockets::OnTimer(void*, long timeout_ms, void* self) {
  auto* sockets = static_cast<HttpSockets*>(self);
  sockets->timer_.reset();
  if (timeout_ms >= 0) sockets->timer_ = Now() + std::chrono::milliseconds(timeout_ms);
  return 0;
}

void HttpSockets::Wake() {
  constexpr uint64_t kOnce = 1;
  (void)!write(wake_.get(), &kOnce, sizeof(kOnce));
}

void HttpSockets::Wait(std::span<pollfd> others, Duration timeout) {
  std::vector<pollfd> fds(others.begin(), others.end());
  fds.push_back({wake_.get(), POLLIN, 0});
  if (ready_.empty()) {
    for (const auto& [fd, interest] : interests_) fds.push_back({fd, interest.events, 0});
    if (timer_) timeout = std::clamp(*timer_ - Now(), Duration::zero(), timeout);
  } else {
    timeout = Duration::zero();
  }
  const auto wait = std::chrono::ceil<std::chrono::milliseconds>(timeout).count();
  if (poll(fds.data(), fds.size(), static_cast<int>(wait)) <= 0) {
    for (pollfd& other : others) other.revents = 0;
    return;
  }
  std::copy_n(fds.begin(), others.size(), others.begin());
  uint64_t wakes = 0;
  if (fds[others.size()].revents != 0) (void)!read(wake_.get(), &wakes, sizeof(wakes));
  for (size_t i = others.size() + 1; i < fds.size(); ++i) {
    if (fds[i].revents != 0) ready_.push_back(fds[i]);
  }
  std::sort(ready_.begin(), ready_.end(), [this](const pollfd& a, const pollfd& b) {
    return interests_.at(a.fd).serial < interests_.at(b.fd).serial;
  });
}

bool HttpSockets::Serve() {
  int running = 0;
  if (timer_ && *timer_ <= Now()) {
    timer_.reset();
    curl_multi_socket_action(multi_, CURL_SOCKET_TIMEOUT, 0, &running);
  }
  if (ready_.empty()) return false;
  const pollfd ready = ready_.front();
  ready_.pop_front();
  const int events = ((ready.revents & POLLIN) != 0 ? CURL_CSELECT_IN : 0) |
                     ((ready.revents & POLLOUT) != 0 ? CURL_CSELECT_OUT : 0) |
                     ((ready.revents & (POLLERR | POLLHUP | POLLNVAL)) != 0 ? CURL_CSELECT_ERR : 0);
  curl_multi_socket_action(multi_, ready.fd, events, &running);
  return true;
}

}  // namespace fetcher
