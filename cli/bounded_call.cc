#include "cli/bounded_call.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "cachecore/unique_fd.h"
#include "cli/process.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

// How long a killed child may take to go before it is left behind.
constexpr std::chrono::milliseconds kReapTimeout{2000};

// The answer on the pipe: an errno (0 is success) as an int, then the value or the message.
[[noreturn]] void Answer(int fd, const Result<std::string>& result) {
  const int error = result.status().error();
  std::string bytes(sizeof error, '\0');
  std::memcpy(bytes.data(), &error, sizeof error);
  bytes += result.ok() ? *result : result.status().message();
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = write(fd, bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno != EINTR) break;
    if (n > 0) done += static_cast<size_t>(n);
  }
  _exit(0);
}

Status ReceiveAnswer(int fd, const Deadline& deadline, std::string* bytes) {
  char buffer[4096];
  for (;;) {
    RETURN_IF_ERROR(WaitForFd(fd, POLLIN, deadline));
    const ssize_t n = read(fd, buffer, sizeof buffer);
    if (n == 0) return {};
    if (n > 0) bytes->append(buffer, static_cast<size_t>(n));
    if (n < 0 && errno != EINTR) return Status::FromErrno(errno, "read from a child process");
  }
}

}  // namespace

Result<std::string> CallInChild(const std::function<Result<std::string>()>& call,
                                const Deadline& deadline) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return Status::FromErrno(errno, "pipe");
  UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  const pid_t child = fork();
  if (child < 0) return Status::FromErrno(errno, "fork");
  if (child == 0) Answer(writer.get(), call());
  writer.Reset();

  std::string bytes;
  const Status received = ReceiveAnswer(reader.get(), deadline, &bytes);
  if (!received.ok()) {
    // A child that can't even be killed is left behind: it holds nothing of ours.
    (void)EndProcess(child, SIGKILL, kReapTimeout).ok();
    waitpid(child, nullptr, WNOHANG);
    return received;
  }
  while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  int error = 0;
  if (bytes.size() < sizeof error) return Status(EIO, "a child process died");
  std::memcpy(&error, bytes.data(), sizeof error);
  bytes.erase(0, sizeof error);
  if (error != 0) return Status(error, bytes);
  return bytes;
}

}  // namespace cli
