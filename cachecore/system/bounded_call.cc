#include "cli/bounded_call.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "cachecore/unique_fd.h"
#include "cli/process.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

// How long a killed child may take to go before it is left behind.
constexpr std::chrono::milliseconds kReapTimeout{2000};

// Sends the first byte, with the descriptor if there is one.
bool SendFirst(int socket, char byte, int fd) {
  iovec data = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  while (sendmsg(socket, &message, MSG_NOSIGNAL) < 0) {
    if (errno != EINTR) return false;
  }
  return true;
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

void TakeFd(msghdr* message, UniqueFd* fd) {
  for (cmsghdr* header = CMSG_FIRSTHDR(message); header != nullptr;
       header = CMSG_NXTHDR(message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    int received = -1;
    std::memcpy(&received, CMSG_DATA(header), sizeof received);
    fd->Reset(received);
  }
}

Status ReceiveAnswer(int socket, const Deadline& deadline, ChildAnswer* answer) {
  char buffer[4096];
  for (;;) {
    RETURN_IF_ERROR(WaitForFd(socket, POLLIN, deadline));
    iovec data = {buffer, sizeof buffer};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    msghdr message = {};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    if (n == 0) return {};
    if (n > 0) {
      answer->value.append(buffer, static_cast<size_t>(n));
      TakeFd(&message, &answer->fd);
    } else if (errno != EINTR) {
      return Status::FromErrno(errno, "read from a child process");
    }
  }
}

}  // namespace

Result<ChildAnswer> OpenInChild(const std::function<Result<ChildAnswer>()>& call,
                                const Deadline& deadline) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return Status::FromErrno(errno, "socketpair");
  }
  UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  const pid_t child = fork();
  if (child < 0) return Status::FromErrno(errno, "fork");
  if (child == 0) {
    reader.Reset();
    Answer(writer.get(), call());
  }
  writer.Reset();

  ChildAnswer answer;
  const Status received = ReceiveAnswer(reader.get(), deadline, &answer);
  if (!received.ok()) {
    // A child that can't even be killed is left behind: it holds nothing of ours.
    (void)EndProcess(PinProcess(child), SIGKILL, kReapTimeout).ok();
    waitpid(child, nullptr, WNOHANG);
    return received;
  }
  while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  int error = 0;
  if (answer.value.size() < sizeof error) return Status(EIO, "a child process died");
  std::memcpy(&error, answer.value.data(), sizeof error);
  answer.value.erase(0, sizeof error);
  if (error != 0) return Status(error, answer.value);
  return answer;
}

Result<std::string> CallInChild(const std::function<Result<std::string>()>& call,
                                const Deadline& deadline) {
  const auto without_fd = [&call]() -> Result<ChildAnswer> {
    ASSIGN_OR_RETURN(std::string value, call());
    return ChildAnswer{std::move(value), UniqueFd()};
  };
  ASSIGN_OR_RETURN(ChildAnswer answer, OpenInChild(without_fd, deadline));
  return std::move(answer.value);
}

}  // namespace cli
