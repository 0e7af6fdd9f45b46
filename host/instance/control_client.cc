#include "host/instance/control_client.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "cachecore/base/json_fields.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/base/unix_socket.h"
#include "cachecore/protocol/control_messages.h"

namespace host {
namespace {

using cachecore::Deadline;
using cachecore::JsonText;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
using cachecore::WaitForFd;
using cachecore::WaitUntil;
using nlohmann::json;

constexpr size_t kAnswerBytesMax = 256 << 20;  // A status of a million objects fits.

// Non-blocking: connect(2) to a Unix socket whose backlog is full would block for ever otherwise.
Result<UniqueFd> Connect(const std::string& path, const Deadline& deadline) {
  ASSIGN_OR_RETURN(const sockaddr_un address, cachecore::UnixAddress(path));
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return Status::FromErrno(errno, "socket");
  int error = 0;
  const auto connected = [&] {
    error = connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0
                ? 0
                : errno;
    return error != EAGAIN && error != EINTR;
  };
  RETURN_IF_ERROR(WaitUntil(connected, deadline).WithContext(path));
  if (error != 0) return Status::FromErrno(error, path);
  return fd;
}

Status SendLine(int fd, const std::string& line, const Deadline& deadline) {
  size_t done = 0;
  while (done < line.size()) {
    const ssize_t n = send(fd, line.data() + done, line.size() - done, MSG_NOSIGNAL);
    if (n >= 0) {
      done += static_cast<size_t>(n);
    } else if (errno == EAGAIN) {
      RETURN_IF_ERROR(WaitForFd(fd, POLLOUT, deadline));
    } else if (errno != EINTR) {
      return Status::FromErrno(errno, "send");
    }
  }
  return {};
}

Result<std::string> ReceiveLine(int fd, const Deadline& deadline) {
  std::string line;
  char buffer[16384];
  while (line.size() < kAnswerBytesMax) {
    const ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    if (n > 0) {
      line.append(buffer, static_cast<size_t>(n));
      const size_t end = line.find('\n', line.size() - static_cast<size_t>(n));
      if (end != std::string::npos) return line.substr(0, end);
    } else if (n == 0) {
      if (line.empty()) return Status(ECONNRESET, "the daemon closed the connection unanswered");
      return line;
    } else if (errno == EAGAIN) {
      RETURN_IF_ERROR(WaitForFd(fd, POLLIN, deadline));
    } else if (errno != EINTR) {
      return Status::FromErrno(errno, "receive");
    }
  }
  return Status(EPROTO, "the answer is too long");
}

}  // namespace

Result<json> CallControl(const std::string& socket_path, const json& request,
                         const Deadline& deadline, bool* answered) {
  if (answered != nullptr) *answered = false;
  ASSIGN_OR_RETURN(const UniqueFd fd, Connect(socket_path, deadline));
  RETURN_IF_ERROR(SendLine(fd.get(), JsonText(request) + "\n", deadline).WithContext(socket_path));
  Result<std::string> line = ReceiveLine(fd.get(), deadline);
  if (!line.ok()) return std::move(line).status().WithContext(socket_path);
  bool is_answer = false;
  Result<json> answer = cachecore::control::DecodeAnswer(*line, &is_answer);
  if (answered != nullptr) *answered = is_answer;
  if (!is_answer) return std::move(answer).status().WithContext(socket_path);
  return answer;
}

}  // namespace host
