// ScriptedOrigin: an HTTP/1.1 server of one body on loopback that misbehaves as a test says.
//
// Model    answers ranges and If-Range as RFC 9110 says, unless a Misbehaviour is due: Then()
//          queues one for one request, Always() sets one for every request.  A thread per
//          connection.
// Threads  thread-safe.

#ifndef TESTS_FETCHER_ORIGINS_SCRIPTED_ORIGIN_H_
#define TESTS_FETCHER_ORIGINS_SCRIPTED_ORIGIN_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

struct Misbehaviour {
  int status = 0;                  // Answer with this status and a few bytes of body.
  std::string headers = {};        // Further header lines, each with its CRLF.
  std::string content_range = {};  // In place of the right one.
  bool whole = false;              // 200 and everything.
  uint64_t short_by = 0;           // Hang up that many bytes early.
  bool stall = false;              // Send the headers, then nothing until the peer gives up.
  uint64_t stall_after = 0;        // With stall: that much of the body first.
  int delay_ms = 0;                // Before the first byte of the answer ...
  int body_delay_ms = 0;           // ... and between its headers and its body.
  bool hang_up = false;            // Close without an answer.
  bool ignore_if_range = false;
};

struct OriginRequest {
  std::string target;  // Path and query.
  std::string range;
  std::string if_range;
  std::string authorization;
};

class ScriptedOrigin {
 public:
  explicit ScriptedOrigin(std::string body, std::string etag = "\"one\"");
  ~ScriptedOrigin();

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_) + "/"; }
  uint16_t port() const { return port_; }

  void Then(Misbehaviour misbehaviour);
  void Always(std::optional<Misbehaviour> misbehaviour);
  void Replace(std::string body, std::string etag);

  std::vector<OriginRequest> requests() const;
  uint64_t body_bytes_sent() const;

 private:
  void Serve();
  void ServeConnection(int fd);
  // False to close the connection.
  bool Answer(int fd, const OriginRequest& request);

  mutable std::mutex mu_;
  std::string body_;
  std::string etag_;
  std::deque<Misbehaviour> script_;
  std::optional<Misbehaviour> always_;
  std::vector<OriginRequest> requests_;
  uint64_t body_bytes_sent_ = 0;
  std::vector<int> connections_;
  std::vector<std::thread> workers_;
  bool stopping_ = false;

  int listener_ = -1;
  uint16_t port_ = 0;
  std::thread acceptor_;
};

#endif  // TESTS_FETCHER_ORIGINS_SCRIPTED_ORIGIN_H_
