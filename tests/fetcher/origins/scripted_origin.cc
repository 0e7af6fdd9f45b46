#include "tests/fetcher/origins/scripted_origin.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <stdexcept>
#include <utility>

namespace {

bool SendAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

std::string Header(const std::string& head, const std::string& name) {
  const size_t at = head.find("\r\n" + name + ": ");
  if (at == std::string::npos) return "";
  const size_t begin = at + 2 + name.size() + 2;
  return head.substr(begin, head.find("\r\n", begin) - begin);
}

}  // namespace

ScriptedOrigin::ScriptedOrigin(std::string body, std::string etag)
    : body_(std::move(body)), etag_(std::move(etag)) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      listen(listener_, 64) != 0 ||
      getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    throw std::runtime_error("ScriptedOrigin: cannot listen");
  }
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { Serve(); });
}

ScriptedOrigin::~ScriptedOrigin() {
  {
    const std::lock_guard<std::mutex> lock(mu_);
    stopping_ = true;
    for (const int fd : connections_) shutdown(fd, SHUT_RDWR);
  }
  shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  for (std::thread& worker : workers_) worker.join();
  for (const int fd : connections_) close(fd);
  close(listener_);
}

void ScriptedOrigin::Then(Misbehaviour misbehaviour) {
  const std::lock_guard<std::mutex> lock(mu_);
  script_.push_back(std::move(misbehaviour));
}

void ScriptedOrigin::Always(std::optional<Misbehaviour> misbehaviour) {
  const std::lock_guard<std::mutex> lock(mu_);
  always_ = std::move(misbehaviour);
}

void ScriptedOrigin::Replace(std::string body, std::string etag) {
  const std::lock_guard<std::mutex> lock(mu_);
  body_ = std::move(body);
  etag_ = std::move(etag);
}

std::vector<OriginRequest> ScriptedOrigin::requests() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return requests_;
}

uint64_t ScriptedOrigin::body_bytes_sent() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return body_bytes_sent_;
}

void ScriptedOrigin::Serve() {
  while (true) {
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return;
    const std::lock_guard<std::mutex> lock(mu_);
    connections_.push_back(fd);  // Closed by the destructor only, so that its number stays ours.
    if (stopping_) return;
    workers_.emplace_back([this, fd] { ServeConnection(fd); });
  }
}

void ScriptedOrigin::ServeConnection(int fd) {
  std::string in;
  while (true) {
    const size_t end = in.find("\r\n\r\n");
    if (end == std::string::npos) {
      char buffer[4096];
      const ssize_t got = recv(fd, buffer, sizeof(buffer), 0);
      if (got <= 0) break;
      in.append(buffer, static_cast<size_t>(got));
      if (in[0] != 'G') {  // TLS, say.
        SendAll(fd, "HTTP/1.1 400 Bad Request\r\n\r\n");
        break;
      }
      continue;
    }
    const std::string head = in.substr(0, end + 2);
    in.erase(0, end + 4);
    OriginRequest request;
    const size_t target = head.find(' ') + 1;
    request.target = head.substr(target, head.find(' ', target) - target);
    request.range = Header(head, "Range");
    request.if_range = Header(head, "If-Range");
    request.authorization = Header(head, "Authorization");
    if (!Answer(fd, request)) break;
  }
  shutdown(fd, SHUT_RDWR);
}

bool ScriptedOrigin::Answer(int fd, const OriginRequest& request) {
  Misbehaviour odd;
  std::string body;
  std::string etag;
  {
    const std::lock_guard<std::mutex> lock(mu_);
    requests_.push_back(request);
    body = body_;
    etag = etag_;
    if (!script_.empty()) {
      odd = std::move(script_.front());
      script_.pop_front();
    } else if (always_) {
      odd = *always_;
    }
  }
  if (odd.hang_up) return false;
  std::this_thread::sleep_for(std::chrono::milliseconds(odd.delay_ms));

  unsigned long long first = 0;
  unsigned long long last = 0;
  const bool ranged =
      std::sscanf(request.range.c_str(), "bytes=%llu-%llu", &first, &last) == 2 &&
      (request.if_range.empty() || request.if_range == etag || odd.ignore_if_range) && !odd.whole;
  int status = odd.status;
  std::string headers = odd.headers;
  if (!etag.empty()) headers += "ETag: " + etag + "\r\n";
  if (status != 0) {
    body = status == 416 ? "" : "no\n";
    if (!odd.content_range.empty()) headers += "Content-Range: " + odd.content_range + "\r\n";
  } else if (!ranged) {
    status = 200;
  } else if (first >= body.size()) {
    status = 416;
    headers += "Content-Range: bytes */" + std::to_string(body.size()) + "\r\n";
    body.clear();
  } else {
    status = 206;
    last = std::min<unsigned long long>(last, body.size() - 1);
    const std::string right = "bytes " + std::to_string(first) + "-" + std::to_string(last) + "/" +
                              std::to_string(body.size());
    headers += "Content-Range: " + (odd.content_range.empty() ? right : odd.content_range) + "\r\n";
    body = body.substr(first, last - first + 1);
  }
  const std::string head = "HTTP/1.1 " + std::to_string(status) + " Whatever\r\n" + headers +
                           "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n";
  if (!SendAll(fd, head)) return false;
  std::this_thread::sleep_for(std::chrono::milliseconds(odd.body_delay_ms));
  if (odd.stall) {
    if (!SendAll(fd, body.substr(0, odd.stall_after))) return false;
    char byte;
    return recv(fd, &byte, 1, 0) > 0;
  }
  const std::string_view sent =
      std::string_view(body).substr(0, body.size() - std::min<uint64_t>(odd.short_by, body.size()));
  {
    const std::lock_guard<std::mutex> lock(mu_);
    body_bytes_sent_ += sent.size();
  }
  return SendAll(fd, sent) && odd.short_by == 0;
}
