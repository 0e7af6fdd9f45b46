// A service for the supervisor's tests: says which process it is on the test's socket, then does as told
// there. It talks to its supervisor through libsystemd only, so that what passes here passes with
// systemd.
//
// test_service CONTROL_SOCKET NAME
//
// Hello: NAME, pid, number of passed descriptors, their names (':'-joined), watchdog in
// microseconds; a line each. Commands: "notify\nTEXT" (with descriptors), "barrier", "read NAME",
// "exit CODE", "ignore SIGNAL", "orphan", "list NAME" (with a descriptor, which is listed with those
// that were passed; without one: no more are, and it is ready).  Each but exit is answered with one
// packet.

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cachecore/environment/descriptor_table.h"

namespace {

struct Passed {
  std::string name;
  int fd;
};
std::vector<Passed> passed_fds;

std::string ReadPassed(const std::string& name) {
  for (const Passed& passed : passed_fds) {
    if (passed.name != name) continue;
    char text[256];
    ssize_t size = pread(passed.fd, text, sizeof(text), 0);
    return size < 0 ? strerror(errno) : std::string(text, static_cast<size_t>(size));
  }
  return "no such name";
}

// A process whose parent is gone at once; waits to be killed.
std::string MakeOrphan() {
  int pipe_fds[2];
  if (pipe(pipe_fds) != 0) return "pipe failed";
  pid_t parent = fork();
  if (parent == 0) {
    pid_t orphan = fork();
    if (orphan == 0) {
      for (int fd = 0; fd < 64; ++fd) close(fd);
      for (;;) pause();
    }
    dprintf(pipe_fds[1], "%d", orphan);
    _exit(0);
  }
  waitpid(parent, nullptr, 0);
  char text[16] = {};
  return read(pipe_fds[0], text, sizeof(text) - 1) > 0 ? text : "read failed";
}

std::string List(const std::string& name, const std::vector<int>& fds) {
  static std::unique_ptr<cachecore::DescriptorTable> table;
  if (table == nullptr) {
    std::vector<cachecore::DescriptorTable::Stored> stored;
    for (const Passed& passed : passed_fds) stored.push_back({passed.name, passed.fd});
    for (int fd : fds) stored.push_back({name, fd, /*is_polled=*/true});
    auto made = cachecore::DescriptorTable::Create(stored);
    if (!made.ok()) return made.status().message();
    table = std::move(made).value();
  }
  if (fds.empty()) table->SetReady();
  return "ok";
}

std::string Obey(const std::string& command, const std::vector<int>& fds) {
  auto argument = [&](const char* verb) { return command.substr(strlen(verb)); };
  if (command.starts_with("notify\n")) {
    int rc = sd_pid_notify_with_fds(0, 0, argument("notify\n").c_str(), fds.data(),
                                    static_cast<unsigned>(fds.size()));
    return std::to_string(rc);
  }
  if (command == "barrier") return std::to_string(sd_notify_barrier(0, 5'000'000));
  if (command.starts_with("read ")) return ReadPassed(argument("read "));
  if (command.starts_with("exit ")) _exit(atoi(argument("exit ").c_str()));
  if (command.starts_with("ignore ")) {
    signal(atoi(argument("ignore ").c_str()), SIG_IGN);
    return "ok";
  }
  if (command == "orphan") return MakeOrphan();
  if (command.starts_with("list ")) return List(argument("list "), fds);
  return "unknown command";
}

// One packet and the descriptors beside it; false at the socket's end.
bool Receive(int socket, std::string* text_out, std::vector<int>* fds) {
  char text[8192];
  alignas(cmsghdr) char ancillary[CMSG_SPACE(sizeof(int) * 64)];
  iovec data{text, sizeof(text)};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = ancillary;
  message.msg_controllen = sizeof(ancillary);
  ssize_t size = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  if (size <= 0) return false;
  if (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr) {
    fds->resize((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(fds->data(), CMSG_DATA(header), fds->size() * sizeof(int));
  }
  text_out->assign(text, static_cast<size_t>(size));
  return true;
}

// Until it is this spare's turn; the names that come then end in ':' each.
void AwaitTurn() {
  if (getenv("HOLDFAST_TEST_NEVER_FIT") != nullptr) pause();
  std::string names;
  std::vector<int> fds;
  if (send(passed_fds[0].fd, "\n", 1, MSG_NOSIGNAL) != 1) _exit(0);
  if (!Receive(passed_fds[0].fd, &names, &fds)) _exit(0);
  sd_notify(0, "STATUS=taking over");
  passed_fds.clear();
  size_t begin = 0;
  for (int fd : fds) {
    size_t end = names.find(':', begin);
    passed_fds.push_back({names.substr(begin, end - begin), fd});
    begin = end + 1;
  }
}

bool Serve(int control) {
  std::string command;
  std::vector<int> fds;
  if (!Receive(control, &command, &fds)) return false;  // The test has ended.
  std::string answer = Obey(command, fds);
  for (int fd : fds) close(fd);
  return send(control, answer.data(), answer.size(), MSG_NOSIGNAL) >= 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  char** names = nullptr;
  int passed = sd_listen_fds_with_names(0, &names);
  for (int i = 0; i < passed; ++i) passed_fds.push_back({names[i], SD_LISTEN_FDS_START + i});
  const bool spare = passed == 1 && passed_fds[0].name == "spare";
  if (spare) AwaitTurn();
  std::string joined;
  for (const Passed& fd : passed_fds) joined += (joined.empty() ? "" : ":") + fd.name;
  uint64_t watchdog_usec = 0;
  sd_watchdog_enabled(0, &watchdog_usec);
  fprintf(stderr, "%s lives as %d\n", argv[2], getpid());

  int control = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  strncpy(address.sun_path, argv[1], sizeof(address.sun_path) - 1);
  if (connect(control, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) return 3;
  std::string hello = std::string(argv[2]) + "\n" + std::to_string(getpid()) + "\n" +
                      std::to_string(passed_fds.size()) + "\n" + std::to_string(watchdog_usec) +
                      "\n" + joined + "\n";
  if (send(control, hello.data(), hello.size(), MSG_NOSIGNAL) < 0) return 4;
  while (Serve(control)) {
  }
  return 0;
}
