// The two programs as processes: the example fetcher, and holdfast-fetcherd's flags and signals.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <sstream>

#include "tests/fetcher/engine/fake_daemon.h"

namespace {

using testing::HasSubstr;
using testing::Not;

class ProgramsTest : public testing::Test {
 protected:
  ~ProgramsTest() override {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

  // Starts a program, its output going to a file.
  void Start(std::vector<std::string> arguments, std::vector<std::string> environment = {}) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, output_.c_str(), O_CREAT | O_TRUNC | O_WRONLY,
                                     0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    const auto pointers = [](std::vector<std::string>& strings) {
      std::vector<char*> list;
      for (std::string& s : strings) list.push_back(s.data());
      list.push_back(nullptr);
      return list;
    };
    environment.push_back("PATH=/usr/bin:/bin");
    ASSERT_EQ(posix_spawn(&pid_, arguments[0].c_str(), &actions, nullptr,
                          pointers(arguments).data(), pointers(environment).data()),
              0);
    posix_spawn_file_actions_destroy(&actions);
  }
  // Waits for its end; the exit status, or 1000 and the signal.
  int Wait() {
    int status = 0;
    waitpid(std::exchange(pid_, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  }
  int Run(std::vector<std::string> arguments) {
    Start(std::move(arguments));
    return Wait();
  }
  std::string Output() const {
    std::ostringstream text;
    text << std::ifstream(output_).rdbuf();
    return text.str();
  }
  std::vector<std::string> Fetcherd() const {
    return {FETCHERD, "--device=" + daemon_.path(), "--sources-dir=" + daemon_.dir()};
  }

  FakeDaemon daemon_;
  const std::string output_ = daemon_.dir() + "/output";
  pid_t pid_ = -1;
};

TEST_F(ProgramsTest, TheExampleFetcherServesADirectory) {
  std::ofstream(daemon_.dir() + "/image") << std::string(5000, 'i');
  Start({EXAMPLE_FETCHER, daemon_.path(), daemon_.dir()});
  daemon_.Accept();
  daemon_.Open(0, 1, "any", "image");
  EXPECT_EQ(daemon_.NextLine(), "copen 0,5000");
  daemon_.Read(1, 1, 4096, 904);
  EXPECT_EQ(daemon_.NextLine(), "filled 1,4096,904");
  EXPECT_EQ(daemon_.NextLine(), "cread 1,1");
  EXPECT_EQ(daemon_.Data(1, {4096, 5000}), std::string(904, 'i'));
  daemon_.Open(2, 2, "any", "../image");
  EXPECT_THAT(daemon_.NextLine(), HasSubstr("no object of this name"));
  EXPECT_EQ(daemon_.NextLine(), "copen 2,-2");
  daemon_.Disconnect();
  EXPECT_EQ(Wait(), 1);
  EXPECT_THAT(Output(), HasSubstr("holdfastd has closed the connection"));
}

TEST_F(ProgramsTest, HelpIsOurOwnFlagsOnly) {
  EXPECT_EQ(Run({FETCHERD, "--help"}), 0);
  EXPECT_THAT(Output(), HasSubstr("--retry-budget"));
  EXPECT_THAT(Output(), Not(HasSubstr("logtostderr")));
  EXPECT_EQ(Run({FETCHERD, "--version"}), 0);
  EXPECT_THAT(Output(), HasSubstr(HOLDFAST_VERSION));
}

TEST_F(ProgramsTest, ABadFlagIsNamed) {
  EXPECT_EQ(Run({FETCHERD, "--sources-dir=/"}), 2);
  EXPECT_THAT(Output(), HasSubstr("--device is missing"));
  auto arguments = Fetcherd();
  arguments.push_back("--retry-budget=soon");
  EXPECT_EQ(Run(arguments), 2);
  EXPECT_THAT(Output(), HasSubstr("--retry-budget: "));
  arguments.back() = "--credits=4097";
  EXPECT_EQ(Run(arguments), 2);
  EXPECT_THAT(Output(), HasSubstr("--credits is not 1 to 4096"));
  arguments.back() = "stray";
  EXPECT_EQ(Run(arguments), 2);
  EXPECT_THAT(Output(), HasSubstr("unexpected argument stray"));
}

TEST_F(ProgramsTest, AFlagIsTakenWithUnderscoresToo) {
  auto arguments = Fetcherd();
  arguments.push_back("--retry_budget=soon");
  EXPECT_EQ(Run(arguments), 2);
  EXPECT_THAT(Output(), HasSubstr("--retry-budget: "));
  EXPECT_THAT(Output(), Not(HasSubstr("--retry_budget")));
}

TEST_F(ProgramsTest, SigtermIsACleanExit) {
  Start(Fetcherd());
  daemon_.Accept();
  daemon_.WaitUntil([&] { return daemon_.restores() == 1; });
  kill(pid_, SIGTERM);
  EXPECT_EQ(Wait(), 0);
}

TEST_F(ProgramsTest, RefusedByTheDaemonItSaysSoAndExits) {
  Start(Fetcherd());
  daemon_.Accept(Hello(-EPERM));
  EXPECT_EQ(Wait(), 1);
  EXPECT_THAT(Output(), HasSubstr("the daemon does not admit this user"));
}

TEST_F(ProgramsTest, ItSaysThatItIsReadyOnceAttached) {
  const std::string path = daemon_.dir() + "/notify";
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  const cachecore::UniqueFd notify(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  ASSERT_EQ(bind(notify.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  Start(Fetcherd(), {"NOTIFY_SOCKET=" + path});
  char text[100];
  EXPECT_EQ(recv(notify.get(), text, sizeof(text), 0), -1);  // Not before.
  daemon_.Accept();
  std::vector<std::string> told;
  daemon_.WaitUntil([&] {
    const ssize_t size = recv(notify.get(), text, sizeof(text), 0);
    if (size > 0) told.emplace_back(text, static_cast<size_t>(size));
    return size > 0 && told.back() == "READY=1";
  });
  EXPECT_THAT(told, testing::ElementsAre("FDSTOREREMOVE=1\nFDNAME=device",
                                         "FDSTORE=1\nFDNAME=device", "READY=1"));
}

// A fetcher without a daemon is not hung, and says so; else a service manager would end it.
TEST_F(ProgramsTest, ItSaysThatItIsAliveWhileNoDaemonIsThere) {
  const std::string path = daemon_.dir() + "/notify";
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  const cachecore::UniqueFd notify(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(bind(notify.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  const timeval patience = {20, 0};
  setsockopt(notify.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  for (const std::string& device : {daemon_.dir() + "/nobody", daemon_.path()}) {  // None, or mute.
    Start({FETCHERD, "--device=" + device, "--sources-dir=" + daemon_.dir()},
          {"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=200000"});
    for (int i = 0; i < 5; ++i) {
      char text[100];
      const ssize_t size = recv(notify.get(), text, sizeof(text), 0);
      ASSERT_GT(size, 0);
      EXPECT_EQ(std::string_view(text, static_cast<size_t>(size)),
                "WATCHDOG=1\nEXTEND_TIMEOUT_USEC=200000");
    }
    kill(pid_, SIGKILL);
    Wait();
  }
}

// A core file would hold the origins' credentials.
TEST_F(ProgramsTest, ACrashLeavesNoCoreFile) {
  rlimit limit = {};
  ASSERT_EQ(getrlimit(RLIMIT_CORE, &limit), 0);
  if (limit.rlim_max == 0) GTEST_SKIP() << "core files are forbidden here (ulimit -Hc)";
  limit.rlim_cur = limit.rlim_max;
  ASSERT_EQ(setrlimit(RLIMIT_CORE, &limit), 0);
  Start(Fetcherd());
  daemon_.Accept();
  daemon_.WaitUntil([&] { return daemon_.restores() == 1; });
  kill(pid_, SIGABRT);
  int status = 0;
  waitpid(std::exchange(pid_, -1), &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_FALSE(WCOREDUMP(status));
}

}  // namespace
