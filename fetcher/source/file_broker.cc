#include "fetcher/source/file_broker.h"

#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <climits>
#include <csignal>
#include <iterator>
#include <optional>
#include <utility>

#include "cachecore/base/unix_socket.h"
#include "cachecore/environment/capabilities.h"
#include "cachecore/environment/log_reopening.h"
#include "cachecore/environment/secret_environment.h"
#include "fetcher/source/local_files.h"

namespace fetcher {
namespace {

using cachecore::CapabilityBit;
using cachecore::DropBoundingSet;
using cachecore::Result;
using cachecore::SetCapabilities;
using cachecore::Status;
using cachecore::UniqueFd;

constexpr size_t kMaxPacket = 64 << 10;
constexpr int kChildrenMax = 32;

// One packet with at most one descriptor.
struct Packet {
  std::string bytes;
  UniqueFd fd;
};

Status SendPacket(int socket, const std::string& bytes, int fd) {
  const ssize_t sent = cachecore::SendWithDescriptor(socket, bytes, fd);
  return sent >= 0 ? Status() : Status::FromErrno(errno, "send");
}

// nullopt: the other end is closed.
std::optional<Packet> ReceivePacket(int socket) {
  Packet packet;
  packet.bytes.resize(kMaxPacket);
  const cachecore::ReceivedPacket received =
      cachecore::ReceiveWithDescriptors(socket, packet.bytes, {&packet.fd, 1});
  if (received.size <= 0) return std::nullopt;
  packet.bytes.resize(static_cast<size_t>(received.size));
  return packet;
}

// An answer: the errno's digits, a space, a sentence.
std::string AnswerText(const Status& status) {
  return std::to_string(status.error()) + " " + status.message();
}

Result<UniqueFd> Open(const RegisteredFiles& files, const std::string& log,
                      const std::string& request) {
  const size_t end = request.find('\0');
  if (end == std::string::npos || end == 0) return Status(EINVAL, "not a request");
  const std::string volume = request.substr(1, end - 1);
  const std::string name = request.substr(end + 1);
  if (name.find('\0') != std::string::npos) return Status(EINVAL, "not a request");
  switch (static_cast<BrokerRequest::Kind>(request[0])) {
    case BrokerRequest::Kind::kSource:
      return files.OpenSource(volume);
    case BrokerRequest::Kind::kObject:
      return files.OpenObject(volume, name);
    case BrokerRequest::Kind::kFile:
      return files.OpenFile(name);
    case BrokerRequest::Kind::kDevice:
      return files.OpenDevice();
    case BrokerRequest::Kind::kLog:
      if (log.empty()) return Status(ENOENT, "there is no log file");
      return cachecore::OpenLogFile(log);
  }
  return Status(EINVAL, "not a request");
}

void Answer(const RegisteredFiles& files, const std::string& log, const Packet& request) {
  const Result<UniqueFd> opened = Open(files, log, request.bytes);
  SendPacket(request.fd.get(), AnswerText(opened.status()), opened.ok() ? opened->get() : -1)
      .IgnoreError("the fetcher no longer waits for this answer");
}

// SIGCHLD, blocked, as a descriptor: children are reaped when they end, not at the next request.
int OpenChildSignals() {
  std::signal(SIGCHLD, SIG_DFL);
  sigset_t ended;
  sigemptyset(&ended);
  sigaddset(&ended, SIGCHLD);
  sigprocmask(SIG_BLOCK, &ended, nullptr);
  return signalfd(-1, &ended, SFD_CLOEXEC | SFD_NONBLOCK);
}

// Returns once the socket has something to say.
void ReapChildrenUntilAsked(int socket, int signals, int* children) {
  for (;;) {
    pollfd entries[] = {{socket, POLLIN, 0}, {signals, POLLIN, 0}};
    (void)poll(entries, std::size(entries), -1);
    signalfd_siginfo info;
    while (read(signals, &info, sizeof info) > 0) continue;
    while (*children > 0 && waitpid(-1, nullptr, WNOHANG) > 0) --*children;
    if (entries[0].revents != 0) return;
  }
}

[[noreturn]] void Serve(int socket, const RegisteredFiles& files, const std::string& log) {
  // Our end is the fetcher's: nothing else ends us, so that no file waits for a broker.
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGPIPE}) std::signal(signal, SIG_IGN);
  prctl(PR_SET_NAME, "holdfast-broker");
  cachecore::SecretEnvironment::Take();  // And forgets them.
  // The fetcher's descriptors must not outlive it in here, above all not its connection.
  dup2(socket, STDERR_FILENO + 1);
  close_range(STDERR_FILENO + 2, UINT_MAX, 0);
  socket = STDERR_FILENO + 1;
  DropBoundingSet();
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (!SetCapabilities(CapabilityBit(CAP_DAC_READ_SEARCH)).ok()) {
    SetCapabilities(0).IgnoreError("a container without it can open root's own files");
  }
  const int signals = OpenChildSignals();
  int children = 0;
  for (;;) {
    ReapChildrenUntilAsked(socket, signals, &children);
    const std::optional<Packet> request = ReceivePacket(socket);
    if (!request) _exit(0);
    if (!request->fd.valid()) continue;
    const pid_t child = children < kChildrenMax ? fork() : -1;
    if (child == 0) {
      Answer(files, log, *request);
      _exit(0);
    }
    if (child > 0) {
      ++children;
    } else {
      const Status busy(EAGAIN, "too many files are being opened");
      SendPacket(request->fd.get(), AnswerText(busy), -1)
          .IgnoreError("the fetcher no longer waits for this answer");
    }
  }
}

}  // namespace

Result<UniqueFd> StartBroker(const RegisteredFiles& files, const std::string& log) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return Status::FromErrno(errno, "make a socket pair");
  }
  UniqueFd ours(ends[0]);
  UniqueFd theirs(ends[1]);
  const pid_t child = fork();
  if (child < 0) return Status::FromErrno(errno, "fork");
  if (child == 0) {
    ours.Reset();
    Serve(theirs.get(), files, log);
  }
  return ours;
}

Result<UniqueFd> AskBroker(const UniqueFd& broker, const BrokerRequest& request) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return Status::FromErrno(errno, "make a socket pair");
  }
  const UniqueFd ours(ends[0]);
  UniqueFd theirs(ends[1]);
  std::string text(1, static_cast<char>(request.kind));
  text += request.volume + '\0' + request.name;
  if (!SendPacket(broker.get(), text, theirs.get()).ok()) {
    return Status(ECONNRESET, "the process that opens files for the fetcher has ended");
  }
  theirs.Reset();
  pollfd answer = {ours.get(), POLLIN, 0};
  const auto patience = std::chrono::milliseconds(LocalFiles::kPatience).count();
  const std::string name = request.name.empty() ? request.volume : request.name;
  if (poll(&answer, 1, static_cast<int>(patience)) <= 0) {
    return Status(EAGAIN, name + ": it does not open; its disk or server does not answer");
  }
  std::optional<Packet> packet = ReceivePacket(ours.get());
  const size_t space = packet ? packet->bytes.find(' ') : std::string::npos;
  int error = 0;
  const bool is_answer =
      space != std::string::npos &&
      std::from_chars(packet->bytes.data(), packet->bytes.data() + space, error).ec == std::errc();
  if (!is_answer) {
    return Status(ECONNRESET, "the process that opens files for the fetcher has ended");
  }
  if (error != 0) return Status(error, packet->bytes.substr(space + 1));
  if (!packet->fd.valid()) return Status(EMFILE, name + ": no descriptor is left for it");
  return std::move(packet->fd);
}

Result<UserIds> FindUser(const std::string& text) {
  const passwd* user = getpwnam(text.c_str());
  uid_t uid = 0;
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, uid);
  const bool is_number = !text.empty() && error == std::errc() && stopped == end;
  if (user == nullptr && is_number) user = getpwuid(uid);
  if (user != nullptr) return UserIds{user->pw_name, user->pw_dir, user->pw_uid, user->pw_gid};
  if (is_number) return UserIds{text, "/", uid, uid};
  return Status(EINVAL, "there is no user \"" + text + "\"");
}

Status BecomeUser(const UserIds& user) {
  DropBoundingSet();
  if (setgroups(0, nullptr) != 0 || setresgid(user.gid, user.gid, user.gid) != 0 ||
      setresuid(user.uid, user.uid, user.uid) != 0) {
    return Status::FromErrno(
        errno, "become user " + user.name + " (--fetcher-user=root of holdfast mount stays root)");
  }
  RETURN_IF_ERROR(SetCapabilities(0));
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return Status::FromErrno(errno, "set no_new_privs");
  }
  if (setresuid(0, 0, 0) == 0) return Status(EPERM, "root was not given up for good");
  setenv("HOME", user.home.c_str(), 1);
  setenv("USER", user.name.c_str(), 1);
  setenv("LOGNAME", user.name.c_str(), 1);
  return Status();
}

}  // namespace fetcher
