#include "host/supervisor/supervisor.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "tests/host/supervisor/supervisor_fixture.h"

namespace host {
namespace {

using cachecore::Duration;
using cachecore::UniqueFd;
using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(RestartBackoffTest, ALifeOfAHundredMillisecondsIsFollowedAtOnce) {
  RestartBackoff backoff{RestartPolicy{}};
  EXPECT_EQ(backoff.DelayAfter(milliseconds(100)), Duration::zero());
  EXPECT_EQ(backoff.DelayAfter(milliseconds(99)), milliseconds(10));
}

TEST(RestartBackoffTest, ShortLivesDoubleTheDelayUpToFiveSeconds) {
  RestartBackoff backoff{RestartPolicy{}};
  for (int ms = 10; ms < 5000; ms *= 2) EXPECT_EQ(backoff.DelayAfter(seconds(0)), milliseconds(ms));
  EXPECT_EQ(backoff.DelayAfter(seconds(0)), seconds(5));
  EXPECT_EQ(backoff.DelayAfter(seconds(0)), seconds(5));
}

TEST(RestartBackoffTest, ALifeOfTenSecondsForgetsTheDelay) {
  RestartBackoff backoff{RestartPolicy{}};
  for (int i = 0; i < 5; ++i) backoff.DelayAfter(seconds(0));
  EXPECT_EQ(backoff.DelayAfter(seconds(10)), Duration::zero());
  EXPECT_EQ(backoff.DelayAfter(seconds(0)), milliseconds(10));
}

TEST(RestartBackoffTest, ShortLivesBetweenLongerOnesNeverAddUpToALongDelay) {
  RestartBackoff backoff{RestartPolicy{}};
  for (int i = 0; i < 100; ++i) {
    EXPECT_LE(backoff.DelayAfter(seconds(0)), milliseconds(20));
    EXPECT_EQ(backoff.DelayAfter(milliseconds(100)), Duration::zero());
  }
}

TEST_F(SupervisorTest, AServiceFindsWhatItStoredInItsNextLives) {
  StartSupervisor(Options({"one"}));
  Life life = NextLife("one");
  EXPECT_EQ(life.passed, 0);
  UniqueFd first = MemFile("the first"), second = MemFile("the second");
  life.NotifyAndWait("FDSTORE=1\nFDNAME=a", {first.get()});
  life.NotifyAndWait("FDSTORE=1\nFDNAME=b\nFDPOLL=0", {second.get()});
  first.Reset();
  second.Reset();
  for (int restart = 0; restart < 3; ++restart) {
    life = Reborn(&life);
    EXPECT_EQ(life.names, "a:b");
    EXPECT_EQ(life.Do("read a"), "the first");
    EXPECT_EQ(life.Do("read b"), "the second");
  }
}

TEST_F(SupervisorTest, AFileStoredInTheLastMomentBeforeDeathIsKept) {
  StartSupervisor(Options({"one"}));
  Life life = NextLife("one");
  UniqueFd file = MemFile("late");
  // The supervisor finds message and corpse in one turn of its loop.
  SignalSupervisor(SIGSTOP);
  life.Notify("FDSTORE=1\nFDNAME=late", {file.get()});
  life.Kill();
  SignalSupervisor(SIGCONT);
  life = NextLife("one");
  EXPECT_EQ(life.names, "late");
  EXPECT_EQ(life.Do("read late"), "late");
}

TEST_F(SupervisorTest, BothServicesKilledAtOnceComeBackEachWithItsOwn) {
  StartSupervisor(Options({"one", "two"}));
  Life one = NextLife("one"), two = NextLife("two");
  UniqueFd file_one = MemFile("of one"), file_two = MemFile("of two");
  one.NotifyAndWait("FDSTORE=1\nFDNAME=f", {file_one.get()});
  two.NotifyAndWait("FDSTORE=1\nFDNAME=f", {file_two.get()});
  SignalSupervisor(SIGSTOP);
  one.Kill();
  two.Kill();
  SignalSupervisor(SIGCONT);
  one = NextLife("one");
  two = NextLife("two");
  EXPECT_EQ(one.Do("read f"), "of one");
  EXPECT_EQ(two.Do("read f"), "of two");
}

TEST_F(SupervisorTest, AServiceHasOnlyItsOwnDescriptors) {
  UniqueFd leaked(open("/dev/null", O_RDONLY));  // Not close-on-exec, as a careless caller's.
  StartSupervisor(Options({"one"}));
  Life life = NextLife("one");
  EXPECT_EQ(OpenFds(life.pid), (std::vector<std::string>{"0", "1", "2", "3"}));  // 3: control.
  UniqueFd file = MemFile("x");
  life.NotifyAndWait("FDSTORE=1", {file.get()});
  life = Reborn(&life);
  EXPECT_EQ(OpenFds(life.pid), (std::vector<std::string>{"0", "1", "2", "3", "4"}));
  EXPECT_EQ(life.names, "stored");
}

TEST_F(SupervisorTest, VariablesOfTheSupervisorsOwnManagerAreNotPassedOn) {
  setenv("LISTEN_FDS", "3", 1);
  setenv("WATCHDOG_USEC", "1", 1);
  setenv("HOLDFAST_TEST_VARIABLE", "kept", 1);
  StartSupervisor(Options({"one"}));
  for (const char* name : {"LISTEN_FDS", "WATCHDOG_USEC", "HOLDFAST_TEST_VARIABLE"}) unsetenv(name);
  Life life = NextLife("one");
  const std::string env = ReadFile("/proc/" + std::to_string(life.pid) + "/environ");
  EXPECT_EQ(env.find("LISTEN_"), std::string::npos);
  EXPECT_EQ(env.find("WATCHDOG_"), std::string::npos);
  EXPECT_NE(env.find("HOLDFAST_TEST_VARIABLE=kept"), std::string::npos);
  EXPECT_NE(env.find("NOTIFY_SOCKET=" + Path("run/notify/one")), std::string::npos);
}

TEST_F(SupervisorTest, AServiceStartsWithOpenSignalsAndTheOomScoreOfOurCaller) {
  StartSupervisor(Options({"one"}));
  Life life = NextLife("one");
  const std::string proc = "/proc/" + std::to_string(life.pid);
  EXPECT_NE(ReadFile(proc + "/status").find("SigBlk:\t0000000000000000"), std::string::npos);
  EXPECT_EQ(ReadFile(proc + "/oom_score_adj"), ReadFile("/proc/self/oom_score_adj"));
}

TEST_F(SupervisorTest, LogsOfAllLivesAreAppended) {
  StartSupervisor(Options({"one"}));
  Life life = NextLife("one");
  const std::string first = "one lives as " + std::to_string(life.pid) + "\n";
  life = Reborn(&life);
  EXPECT_EQ(ReadFile(Path("one.log")), first + "one lives as " + std::to_string(life.pid) + "\n");
}

TEST_F(SupervisorTest, ThePidFileNamesTheServiceBeforeItsFirstInstruction) {
  StartSupervisor(Options({"one"}));
  Life life = NextLife("one");
  EXPECT_EQ(ReadFile(Path("one.pid")), PidText(life.pid));
  life = Reborn(&life);
  EXPECT_EQ(ReadFile(Path("one.pid")), PidText(life.pid));
  EXPECT_FALSE(std::filesystem::exists(Path("one.pid.tmp")));
}

TEST_F(SupervisorTest, AHungUpFileIsDroppedWhileTheServiceRuns) {
  StartSupervisor(Options({"one"}));
  Life life = NextLife("one");
  int fds[2], unpolled[2];
  ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
  ASSERT_EQ(pipe2(unpolled, O_CLOEXEC), 0);
  life.Notify("FDSTORE=1\nFDNAME=goes", {fds[0]});
  life.NotifyAndWait("FDSTORE=1\nFDNAME=stays\nFDPOLL=0", {unpolled[0]});
  for (int fd : {fds[0], fds[1], unpolled[0], unpolled[1]}) close(fd);
  WaitStatus([](const auto& status) {
    return ServiceOf(status, "one")["fd_store"] == nlohmann::json{"stays"};
  });
  life = Reborn(&life);
  EXPECT_EQ(life.names, "stays");
}

TEST_F(SupervisorTest, ABarrierReturnsOnceAllBeforeItIsDone) {
  StartSupervisor(Options({"one"}));
  Life life = NextLife("one");
  UniqueFd file = MemFile("x");
  SignalSupervisor(SIGSTOP);
  life.Notify("FDSTORE=1\nFDNAME=before", {file.get()});
  // Asked of a supervisor that stands still it must not return.
  ASSERT_EQ(send(life.control.get(), "barrier", 7, 0), 7);
  pollfd answer{.fd = life.control.get(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&answer, 1, 100), 0);
  SignalSupervisor(SIGCONT);
  ASSERT_EQ(poll(&answer, 1, kDeadlineMs), 1);
  char text[8] = {};
  ASSERT_GT(recv(life.control.get(), text, sizeof(text), 0), 0);
  EXPECT_STREQ(text, "1");
  EXPECT_EQ(Reborn(&life).names, "before");
}

TEST_F(SupervisorTest, DuplicatesBadNamesAndOverflowEndAsWithSystemd) {
  SupervisorOptions options = Options({"one"});
  options.services[0].fd_store_max = 3;
  StartSupervisor(options);
  Life life = NextLife("one");
  UniqueFd a = MemFile("a"), b = MemFile("b"), c = MemFile("c"), d = MemFile("d");
  life.Notify("FDSTORE=1\nFDNAME=a", {a.get()});
  life.Notify("FDSTORE=1\nFDNAME=again", {a.get()});
  life.Notify("FDSTORE=1\nFDNAME=bad:name", {b.get()});
  life.Notify("FDSTORE=1\nFDNAME=" + std::string(256, 'x'), {c.get()});
  life.NotifyAndWait("FDSTORE=1\nFDNAME=too-many", {d.get()});
  life = Reborn(&life);
  EXPECT_EQ(life.names, "a:stored:stored");

  life.NotifyAndWait("FDSTOREREMOVE=1\nFDNAME=stored");
  life.NotifyAndWait("FDSTOREREMOVE=1\nFDNAME=never-stored");
  life.NotifyAndWait("FDSTOREREMOVE=1");
  EXPECT_EQ(Reborn(&life).names, "a");
}

TEST_F(SupervisorTest, AllFilesOfOneMessageShareItsName) {
  StartSupervisor(Options({"one"}));
  Life life = NextLife("one");
  UniqueFd a = MemFile("a"), b = MemFile("b");
  life.NotifyAndWait("FDSTORE=1\nFDNAME=pair", {a.get(), b.get()});
  EXPECT_EQ(Reborn(&life).names, "pair:pair");
}

TEST_F(SupervisorTest, FilesSentWithoutFdStoreAreClosed) {
  StartSupervisor(Options({"one"}));
  Life life = NextLife("one");
  const size_t before = SettledFds(&life);
  UniqueFd a = MemFile("a");
  life.NotifyAndWait("STATUS=look", {a.get()});
  life.NotifyAndWait("READY=1\nBARRIER=1", {a.get()});
  EXPECT_EQ(SettledFds(&life), before);
}

TEST_F(SupervisorTest, ADatagramThatIsTooLongIsIgnoredWhole) {
  StartSupervisor(Options({"one"}));
  Life life = NextLife("one");
  UniqueFd a = MemFile("a");
  life.NotifyAndWait("FDSTORE=1\nX=" + std::string(5000, 'x'), {a.get()});
  EXPECT_EQ(Reborn(&life).names, "");
}

TEST_F(SupervisorTest, AStrangersMessageIsNotBelieved) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can become a stranger";
  StartSupervisor(Options({"one"}));
  Life life = NextLife("one");
  EXPECT_EQ(std::filesystem::status(Path("run/notify/one")).permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  chmod(Path("run/notify/one").c_str(), 0777);  // Past the first fence.
  UniqueFd file = MemFile("x");
  life.NotifyAndWait("FDSTORE=1\nFDNAME=kept", {file.get()});
  auto remove_as = [&](uid_t uid) {
    pid_t pid = fork();
    if (pid == 0) {
      sockaddr_un address{};
      address.sun_family = AF_UNIX;
      Path("run/notify/one").copy(address.sun_path, sizeof(address.sun_path) - 1);
      int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
      const std::string text = "FDSTOREREMOVE=1\nFDNAME=kept";
      bool sent =
          setuid(uid) == 0 && sendto(fd, text.data(), text.size(), 0,
                                     reinterpret_cast<sockaddr*>(&address), sizeof(address)) > 0;
      _exit(sent ? 0 : 1);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    EXPECT_EQ(status, 0) << "not sent";
    EXPECT_EQ(life.Do("barrier"), "1");
    life = Reborn(&life);
  };
  remove_as(65534);
  EXPECT_EQ(life.names, "kept");
  remove_as(0);
  EXPECT_EQ(life.names, "");
}

TEST_F(SupervisorTest, TheStatusFileTellsEverythingAnOperatorAsks) {
  SupervisorOptions options = Options({"one"});
  options.services[0].required_ready = true;
  StartSupervisor(options);
  Life life = NextLife("one");
  auto service = ServiceOf(WaitState("one", "starting"), "one");
  EXPECT_EQ(service["pid"], life.pid);
  EXPECT_EQ(service["restarts"], 0);
  EXPECT_EQ(service["last_exit"], "");

  UniqueFd file = MemFile("x");
  life.Notify("READY=1\nSTATUS=mounted \"x\" \\ na\xc3\xafve\tend");
  WaitState("one", "ready");
  life.Notify("FDSTORE=1\nFDNAME=q\"\\", {file.get()});
  service = ServiceOf(
      WaitStatus([](const auto& s) { return !ServiceOf(s, "one")["fd_store"].empty(); }), "one");
  EXPECT_EQ(service["status"], "mounted \"x\" \\ na??ve?end");
  EXPECT_EQ(service["fd_store"][0], "q\"\\");

  life.Notify("STOPPING=1");
  WaitState("one", "stopping");
  EXPECT_EQ(life.Do("exit 7"), "gone");
  Life next = NextLife("one");
  auto status = WaitStatus([&](const auto& s) { return ServiceOf(s, "one")["pid"] == next.pid; });
  EXPECT_EQ(status["pid"], supervisor_pid());
  EXPECT_EQ(status["state"], "running");
  service = ServiceOf(status, "one");
  EXPECT_EQ(service["last_exit"], "exited with code 7");
  EXPECT_EQ(service["restarts"], 1);
  EXPECT_EQ(service["state"], "starting");
  EXPECT_EQ(service["status"], "");
}

TEST_F(SupervisorTest, AServiceThatExitsWithoutAnErrorIsStartedAgainToo) {
  StartSupervisor(Options({"one"}));
  Life life = NextLife("one");
  EXPECT_EQ(life.Do("exit 0"), "gone");
  NextLife("one");
  WaitStatus(
      [](const auto& s) { return ServiceOf(s, "one")["last_exit"] == "exited with code 0"; });
}

TEST_F(SupervisorTest, ALifeThatNeverSaidReadyIsBackedOffHoweverLongItWas) {
  SupervisorOptions options = Options({"one"});
  options.services[0].required_ready = true;
  options.restart.at_once_after = milliseconds(1);  // Less than any life takes.
  options.restart.backoff_min = options.restart.backoff_max = seconds(3600);
  StartSupervisor(options);
  Life ready = NextLife("one");
  ready.NotifyAndWait("READY=1");
  EXPECT_EQ(ready.Do("exit 1"), "gone");
  Life not_ready = NextLife("one");
  EXPECT_EQ(not_ready.Do("exit 1"), "gone");
  EXPECT_GT(ServiceOf(WaitState("one", "waiting"), "one")["retry_at_ms"], 0);
}

TEST_F(SupervisorTest, ACrashLoopIsDampedReportedAndKeepsTheFiles) {
  SupervisorOptions options = Options({"one"});
  options.restart.at_once_after = seconds(3600);
  options.restart.reset_after = seconds(7200);
  options.restart.backoff_min = milliseconds(1);
  options.restart.backoff_max = seconds(3600);
  StartSupervisor(options);
  Life life = NextLife("one");
  UniqueFd file = MemFile("kept");
  life.NotifyAndWait("FDSTORE=1\nFDNAME=kept", {file.get()});
  for (int crash = 1; crash <= 6; ++crash) {
    life = Reborn(&life);
    EXPECT_EQ(life.names, "kept");
  }
  life.Kill();
  auto service = ServiceOf(WaitStatus([](const auto& s) {
                             auto one = ServiceOf(s, "one");
                             return one["state"] == "waiting" && one["restarts"] == 7;
                           }),
                           "one");
  const int64_t last_delay =
      service["retry_at_ms"].get<int64_t>() - service["since_ms"].get<int64_t>();
  EXPECT_EQ(last_delay, 64);
  EXPECT_EQ(service["pid"], 0);
  EXPECT_EQ(service["last_exit"], "killed by signal 9 (SIGKILL)");
  EXPECT_EQ(service["fd_store"], nlohmann::json{"kept"});
  EXPECT_FALSE(std::filesystem::exists(Path("one.pid")));
}

TEST_F(SupervisorTest, EndsAndPausesAreCountedOnByTheNextSupervisor) {
  SupervisorOptions options = Options({"one"});
  options.services[0].required_ready = true;
  StartSupervisor(options);
  Life life = NextLife("one");
  life.NotifyAndWait("READY=1");
  life.Kill();
  life = NextLife("one");
  life.NotifyAndWait("READY=1");
  EXPECT_EQ(life.Do("exit 0"), "gone");
  life = NextLife("one");
  life.NotifyAndWait("READY=1");
  const auto are_counted = [](const auto& status) {
    const auto one = ServiceOf(status, "one");
    int64_t pauses = 0;
    for (const auto& bucket : one["pauses"]) pauses += bucket.template get<int64_t>();
    return one["ends"]["signal"] == 1 && one["ends"]["ended"] == 1 && one["ends"]["exit"] == 0 &&
           pauses == 2 && one["pauses_us"] > 0;
  };
  WaitStatus(are_counted);
  TellSupervisorToStop();
  StartSupervisor(options);
  NextLife("one").NotifyAndWait("READY=1");
  WaitStatus(are_counted);
}

TEST_F(SupervisorTest, AProgramThatVanishesIsReportedAndTriedAgain) {
  SupervisorOptions options = Options({"one"});
  std::filesystem::copy_file(TEST_SERVICE_PATH, Path("program"));
  options.services[0].argv[0] = Path("program");
  options.restart.at_once_after = seconds(3600);
  StartSupervisor(options);
  Life life = NextLife("one");
  std::filesystem::rename(Path("program"), Path("away"));
  life.Kill();
  WaitStatus([](const auto& s) {
    return ServiceOf(s, "one")["last_exit"] == "could not be started: No such file or directory";
  });
  std::filesystem::rename(Path("away"), Path("program"));
  NextLife("one");
}

TEST_F(SupervisorTest, ASilentServiceIsAbortedAndStartedAgain) {
  SupervisorOptions options = Options({"one"});
  options.services[0].watchdog = milliseconds(1000);
  StartSupervisor(options);
  Life life = NextLife("one");
  EXPECT_EQ(life.watchdog_usec, 1'000'000u);
  for (int ping = 0; ping < 10; ++ping) {  // Twice as long as silence would be borne.
    life.Notify("WATCHDOG=1");
    ASSERT_FALSE(life.EndsWithin(200)) << ping;
  }
  EXPECT_TRUE(life.EndsWithin(kDeadlineMs));
  Life next = NextLife("one");
  WaitStatus([](const auto& s) {
    return ServiceOf(s, "one")["last_exit"] == "watchdog: killed by signal 6 (SIGABRT)";
  });
}

TEST_F(SupervisorTest, AServiceThatDoesNotMindAnAbortIsKilled) {
  SupervisorOptions options = Options({"one"});
  options.services[0].required_ready = true;  // Its watchdog counts from READY=1.
  options.services[0].watchdog = milliseconds(200);
  options.abort_grace = milliseconds(50);
  StartSupervisor(options);
  Life life = NextLife("one");
  EXPECT_EQ(life.Do("ignore 6"), "ok");
  life.Notify("READY=1");
  EXPECT_TRUE(life.EndsWithin(kDeadlineMs));
  NextLife("one");
  WaitStatus([](const auto& s) {
    return ServiceOf(s, "one")["last_exit"] == "watchdog: killed by signal 9 (SIGKILL)";
  });
}

TEST_F(SupervisorTest, AStoppedServiceIsNoticedByTheWatchdog) {
  SupervisorOptions options = Options({"one"});
  options.services[0].watchdog = milliseconds(200);
  options.abort_grace = milliseconds(50);
  StartSupervisor(options);
  Life life = NextLife("one");
  kill(life.pid, SIGSTOP);
  EXPECT_TRUE(life.EndsWithin(kDeadlineMs));
  NextLife("one");
}

TEST_F(SupervisorTest, AServiceMaySetItsWatchdogAndPullIt) {
  StartSupervisor(Options({"one"}));
  Life life = NextLife("one");
  EXPECT_EQ(life.watchdog_usec, 0u);
  life.Notify("WATCHDOG_USEC=200000");
  EXPECT_TRUE(life.EndsWithin(kDeadlineMs));
  life = NextLife("one");
  life.Do("notify\nWATCHDOG=trigger");  // It may be gone before it answers.
  EXPECT_TRUE(life.EndsWithin(kDeadlineMs));
  life = NextLife("one");
  WaitStatus([](const auto& s) {
    return ServiceOf(s, "one")["last_exit"] ==
           "asked for by WATCHDOG=trigger: killed by signal 6 (SIGABRT)";
  });
  life.Kill();
  WaitStatus([](const auto& s) {
    return ServiceOf(s, "one")["last_exit"] == "killed by signal 9 (SIGKILL)";
  });
}

TEST_F(SupervisorTest, AServiceThatNeverGetsReadyIsStartedAgain) {
  SupervisorOptions options = Options({"one"});
  options.services[0].required_ready = true;
  options.ready_timeout = milliseconds(500);
  StartSupervisor(options);
  Life life = NextLife("one");
  EXPECT_TRUE(life.EndsWithin(kDeadlineMs));
  life = NextLife("one");
  life.Notify("READY=1");
  auto service = ServiceOf(WaitState("one", "ready"), "one");
  EXPECT_EQ(service["last_exit"], "not ready in time: killed by signal 6 (SIGABRT)");
  EXPECT_FALSE(life.EndsWithin(800)) << "ready, it has all the time of the world";
}

}  // namespace
}  // namespace host
