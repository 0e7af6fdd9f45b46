#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "host/notify/orphan.h"
#include "host/supervisor/supervisor.h"
#include "tests/host/supervisor/supervisor_fixture.h"

namespace host {
namespace {

using cachecore::UniqueFd;
using std::chrono::milliseconds;
using std::chrono::seconds;

TEST_F(SupervisorTest, TermEndsTheServicesLastFirstAndTidiesUp) {
  StartSupervisor(Options({"one", "two"}));
  Life one = NextLife("one"), two = NextLife("two");
  int fds[2];
  ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
  one.NotifyAndWait("FDSTORE=1\nFDPOLL=0", {fds[1]});
  close(fds[1]);
  EXPECT_EQ(two.Do("ignore 15"), "ok");
  SignalSupervisor(SIGTERM);
  auto status = WaitState("two", "stopping");
  EXPECT_EQ(status["state"], "stopping");
  EXPECT_EQ(ServiceOf(status, "one")["state"], "ready");
  EXPECT_FALSE(one.EndsWithin(50));
  two.Kill();
  EXPECT_TRUE(one.EndsWithin(kDeadlineMs));
  SupervisorExit end = WaitSupervisor();
  EXPECT_EQ(end.wait_status, 0) << end.message;

  char byte;
  EXPECT_EQ(read(fds[0], &byte, 1), 0) << "the stored end of the pipe is still open";
  close(fds[0]);
  status = WaitStatus([](const auto& s) { return s["state"] == "stopped"; });
  EXPECT_EQ(ServiceOf(status, "one")["last_exit"], "killed by signal 15 (SIGTERM)");
  EXPECT_EQ(ServiceOf(status, "one")["fd_store"].size(), 0u);
  for (const char* file : {"one.pid", "two.pid", "run/notify/one", "run/notify/two"}) {
    EXPECT_FALSE(std::filesystem::exists(Path(file))) << file;
  }
}

TEST_F(SupervisorTest, AServiceThatDoesNotMindTermIsKilledAfterTheGrace) {
  SupervisorOptions options = Options({"one"});
  options.stop_grace = milliseconds(50);
  StartSupervisor(options);
  Life life = NextLife("one");
  EXPECT_EQ(life.Do("ignore 15"), "ok");
  TellSupervisorToStop();
  auto status = WaitStatus([](const auto& s) { return s["state"] == "stopped"; });
  EXPECT_EQ(ServiceOf(status, "one")["last_exit"],
            "did not stop in time: killed by signal 9 (SIGKILL)");
}

TEST_F(SupervisorTest, AStoppedServiceGetsTerm) {
  StartSupervisor(Options({"one"}));
  Life life = NextLife("one");
  kill(life.pid, SIGSTOP);
  TellSupervisorToStop();
  auto status = WaitStatus([](const auto& s) { return s["state"] == "stopped"; });
  EXPECT_EQ(ServiceOf(status, "one")["last_exit"], "killed by signal 15 (SIGTERM)");
}

TEST_F(SupervisorTest, TermDuringABackoffEndsAtOnce) {
  SupervisorOptions options = Options({"one"});
  options.restart.at_once_after = seconds(3600);
  options.restart.backoff_min = seconds(3600);
  StartSupervisor(options);
  NextLife("one").Kill();
  WaitState("one", "waiting");
  TellSupervisorToStop();
}

TEST_F(SupervisorTest, AClosedTerminalEndsNothing) {
  StartSupervisor(Options({"one"}));
  Life life = NextLife("one");
  SignalSupervisor(SIGHUP);
  EXPECT_EQ(life.Do("barrier"), "1");
  SignalSupervisor(SIGINT);
  EXPECT_EQ(WaitSupervisor().wait_status, 0);
}

TEST_F(SupervisorTest, OrphansOfAServiceAreAdoptedAndReaped) {
  StartSupervisor(Options({"one"}));
  Life life = NextLife("one");
  pid_t orphan = std::stoi(life.Do("orphan"));
  const std::string proc = "/proc/" + std::to_string(orphan);
  EXPECT_EQ(StatusKb(orphan, "PPid"), supervisor_pid());
  kill(orphan, SIGKILL);
  // Two turns of the supervisor's loop later at most.
  for (int i = 0; i < 2; ++i) life = Reborn(&life);
  EXPECT_FALSE(std::filesystem::exists(proc));
}

TEST_F(SupervisorTest, ServicesThatListNothingOutliveAKilledSupervisorAndTheNextOneEndsThem) {
  SupervisorOptions options = Options({"one", "two"});
  StartSupervisor(options);
  Life one = NextLife("one"), two = NextLife("two");
  EXPECT_EQ(two.Do("ignore 15"), "ok");
  kill(two.pid, SIGSTOP);
  SignalSupervisor(SIGKILL);
  WaitSupervisor();
  EXPECT_FALSE(one.EndsWithin(50));

  options.stop_grace = milliseconds(50);
  StartSupervisor(options);
  Life next_one = NextLife("one"), next_two = NextLife("two");
  EXPECT_TRUE(one.EndsWithin(0)) << "the old life was still there when the new one began";
  EXPECT_TRUE(two.EndsWithin(0)) << "the old life was still there when the new one began";
  EXPECT_EQ(ReadFile(Path("one.pid")), PidText(next_one.pid));
  EXPECT_EQ(next_two.Do("barrier"), "1");
}

TEST_F(SupervisorTest, AProcessThatStartedLaterThanThePidFileSaysIsSpared) {
  StartSupervisor(Options({"one"}));
  Life life = NextLife("one");
  // It has the program and the arguments of an orphan, and is none.
  const std::string text = std::to_string(life.pid) + " 1\n";
  std::ofstream(Path("other.pid")) << text;
  const auto ended = EndStaleProcess(Path("other.pid"), Spec("one").argv[0], Spec("one").argv,
                                     std::chrono::milliseconds(20'000));
  ASSERT_TRUE(ended.ok());
  EXPECT_EQ(*ended, 0);
  EXPECT_EQ(life.Do("barrier"), "1");
}

TEST_F(SupervisorTest, StalePidFilesAreRemovedAndStrangersTheyNameAreSpared) {
  pid_t stranger = fork();
  if (stranger == 0) {
    for (;;) pause();
  }
  for (const std::string& text : {std::to_string(stranger), std::string("999999999"),
                                  std::string("-1"), std::string("rubbish"), std::string()}) {
    SCOPED_TRACE(text);
    std::ofstream(Path("one.pid")) << text << "\n";
    StartSupervisor(Options({"one"}));
    Life life = NextLife("one");
    EXPECT_EQ(ReadFile(Path("one.pid")), PidText(life.pid));
    TellSupervisorToStop();
  }
  EXPECT_EQ(kill(stranger, 0), 0);
  EXPECT_EQ(waitpid(stranger, nullptr, WNOHANG), 0) << "the stranger was ended";
}

TEST_F(SupervisorTest, ASecondSupervisorIsToldTheHolderOfTheDirectory) {
  StartSupervisor(Options({"one"}));
  Life life = NextLife("one");
  pid_t first = supervisor_pid();
  pid_t second = fork();
  if (second == 0) {
    auto result = RunSupervisor(Options({"one"}));
    bool as_expected = !result.ok() && result.status().error() == EBUSY &&
                       result.status().message().find(std::to_string(first)) != std::string::npos;
    _exit(as_expected ? 0 : 1);
  }
  int status = -1;
  waitpid(second, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(life.Do("barrier"), "1") << "the first one was disturbed";
}

TEST_F(SupervisorTest, WhatCannotWorkIsRefusedWithItsReason) {
  SupervisorOptions options = Options({"one"});
  options.run_dir = Path("no/such/parent");
  EXPECT_EQ(Refused(options).error, ENOENT);
  std::ofstream(Path("file")) << "x";
  options.run_dir = Path("file");
  EXPECT_EQ(Refused(options).error, ENOTDIR);
  options.run_dir = Path(std::string(100, 'd'));
  EXPECT_EQ(Refused(options).error, ENAMETOOLONG);

  options = Options({"one"});
  options.services[0].argv[0] = "no-such-program-of-holdfast";
  SupervisorExit end = Refused(options);
  EXPECT_EQ(end.error, ENOENT);
  EXPECT_NE(end.message.find("service one"), std::string::npos) << end.message;
  options.services[0].argv[0] = "/tmp";
  EXPECT_EQ(Refused(options).error, EISDIR);
  options = Options({"one"});
  options.services[0].log_path = Path("no/such/log");
  EXPECT_EQ(Refused(options).error, ENOENT);

  EXPECT_EQ(Refused(Options({})).error, EINVAL);
  EXPECT_EQ(Refused(Options({"a/b"})).error, EINVAL);
  EXPECT_EQ(Refused(Options({"one", "one"})).error, EINVAL);
  options = Options({"one"});
  options.services[0].fd_store_max = kFdStoreMax + 1;
  EXPECT_EQ(Refused(options).error, EINVAL);

  options.services[0].fd_store_max = kFdStoreMax;
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit low{.rlim_cur = 2 * kFdStoreMax, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  EXPECT_EQ(Refused(options).error, EMFILE);
  setrlimit(RLIMIT_NOFILE, &before);
}

TEST_F(SupervisorTest, AFullStoreOfTheLongestNamesIsPassedOn) {
  SupervisorOptions options = Options({"one"});
  options.services[0].fd_store_max = kFdStoreMax;
  StartSupervisor(options);
  Life life = NextLife("one");
  std::vector<UniqueFd> files;
  for (size_t sent = 0; sent < kFdStoreMax; sent += 50) {
    std::vector<int> fds;
    for (int i = 0; i < 50; ++i) fds.push_back(files.emplace_back(MemFile("x")).get());
    life.NotifyAndWait("FDSTORE=1\nFDNAME=" + std::string(255, '"'), fds);
  }
  auto status = WaitStatus(
      [](const auto& s) { return ServiceOf(s, "one")["fd_store"].size() == kFdStoreMax; });
  // Its hello is cut to its test's buffer; what counts is that the exec took the environment.
  life = Reborn(&life);
  EXPECT_EQ(life.passed, static_cast<int>(kFdStoreMax));
}

TEST_F(SupervisorTest, AStatusFileThatCannotBeWrittenStopsNothing) {
  SupervisorOptions options = Options({"one"});
  options.status_path = Path("no/such/folder/status");
  StartSupervisor(options);
  Life life = NextLife("one");
  life = Reborn(&life);
  EXPECT_EQ(life.Do("barrier"), "1");
  TellSupervisorToStop();
}

}  // namespace
}  // namespace host
