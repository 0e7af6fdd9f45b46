#include "cachecore/system/bounded_call.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <utility>

#include "cachecore/base/unique_fd.h"
#include "cachecore/base/unix_socket.h"
#include "cachecore/system/process.h"

namespace cachecore {
namespace {

// Sends the first byte, with the descriptor if there is one.
bool SendFirst(int socket, char byte, int fd) {
  return SendWithDescriptor(socket, {&byte, 1}, fd) == 1;
}

// The answer on the socket: an errno (0 is success) as an int, then the value or the message.
[[noreturn]] void Answer(int socket, const Result<ChildAnswer>& result) {
  const int error = result.status().error();
  std::string bytes(sizeof error, '\0');
  std::memcpy(bytes.data(), &error, sizeof error);
  bytes += result.ok() ? result->value : result.status().message();
  size_t done = SendFirst(socket, bytes[0], result.ok() ? result->fd.get() : -1) ? 1 : bytes.size();
  while (done < bytes.size()) {
    const ssize_t n = send(socket, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (n < 0 && errno != EINTR) break;
    if (n > 0) done += static_cast<size_t>(n);
  }
  _exit(0);
}

// In the child.  It may outlive us, if it waits for what no signal ends: then it must not hold what
// others wait for, such as a lock, or the pipe of a program that reads what we print.
void KeepOnly(std::vector<int> kept) {
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int standard = 0; null >= 0 && standard <= STDERR_FILENO; ++standard) {
    if (std::ranges::find(kept, standard) == kept.end()) dup2(null, standard);
  }
  std::ranges::sort(kept);
  unsigned from = STDERR_FILENO + 1;
  for (const int fd : kept) {
    if (fd < static_cast<int>(from)) continue;
    if (fd > static_cast<int>(from)) close_range(from, static_cast<unsigned>(fd) - 1, 0);
    from = static_cast<unsigned>(fd) + 1;
  }
  close_range(from, UINT_MAX, 0);
}

Status ReceiveAnswer(int socket, const Deadline& deadline, ChildAnswer* answer) {
  char buffer[4096];
  for (;;) {
    RETURN_IF_ERROR(WaitForFd(socket, POLLIN, deadline));
    const ReceivedPacket part = ReceiveWithDescriptors(socket, buffer, {&answer->fd, 1});
    if (part.size < 0) return Status::FromErrno(errno, "read from a child process");
    if (part.size == 0) return {};
    answer->value.append(buffer, static_cast<size_t>(part.size));
  }
}

}  // namespace

Result<ChildAnswer> OpenInChild(const std::function<Result<ChildAnswer>()>& call,
                                const Deadline& deadline, std::vector<int> kept) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return Status::FromErrno(errno, "socketpair");
  }
  UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  const pid_t child = fork();
  if (child < 0) return Status::FromErrno(errno, "fork");
  if (child == 0) {
    kept.push_back(writer.get());
    KeepOnly(std::move(kept));
    Answer(writer.get(), call());
  }
  writer.Reset();

  ChildAnswer answer;
  const Status received = ReceiveAnswer(reader.get(), deadline, &answer);
  if (!received.ok()) {
    KillChild(child);
    return received;
  }
  ReapChild(child);
  int error = 0;
  if (answer.value.size() < sizeof error) return Status(EIO, "a child process died");
  std::memcpy(&error, answer.value.data(), sizeof error);
  answer.value.erase(0, sizeof error);
  if (error != 0) return Status(error, answer.value);
  return answer;
}

Result<std::string> CallInChild(const std::function<Result<std::string>()>& call,
                                const Deadline& deadline, std::vector<int> kept) {
  const auto without_fd = [&call]() -> Result<ChildAnswer> {
    ASSIGN_OR_RETURN(std::string value, call());
    return ChildAnswer{std::move(value), UniqueFd()};
  };
  ASSIGN_OR_RETURN(ChildAnswer answer, OpenInChild(without_fd, deadline, std::move(kept)));
  return std::move(answer.value);
}

}  // namespace cachecore
