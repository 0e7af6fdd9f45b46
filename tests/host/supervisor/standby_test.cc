// The supervisor killed: its standby goes on with all that it had, and no service notices.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "tests/host/supervisor/supervisor_harness.h"

namespace host {
namespace {

using cachecore::UniqueFd;
using std::chrono::milliseconds;

constexpr int kRounds = 200;

class StandbyTest : public SupervisorHarness {
 protected:
  SupervisorOptions WithStandby(const std::vector<std::string>& names) const {
    SupervisorOptions options = Options(names);
    options.keep_standby = true;
    options.stop_grace = milliseconds(kDeadlineMs);
    return options;
  }
  static auto HasStandby(pid_t other_than = 0) {
    return [other_than](const auto& status) {
      return status["pid"] != other_than && status["standby"] != 0;
    };
  }
  // Kills the supervisor; returns once another one has a standby of its own.
  void KillSupervisor() {
    const nlohmann::json status = WaitStatus(HasStandby());
    const pid_t supervisor = status["pid"];
    kill(supervisor, SIGKILL);
    const nlohmann::json next = WaitStatus(HasStandby(supervisor));
    EXPECT_EQ(next["takeovers"], status["takeovers"].get<int>() + 1);
    FollowSupervisor(next["pid"]);
  }
};

TEST_F(StandbyTest, TakesOverWithWhatWasStoredAndTheServicesLiveOn) {
  StartSupervisor(WithStandby({"one", "two"}));
  Life one = NextLife("one"), two = NextLife("two");
  const UniqueFd file = MemFile("of one");
  one.NotifyAndWait("FDSTORE=1\nFDNAME=fuse\nFDPOLL=0", {file.get()});
  KillSupervisor();
  one.NotifyAndWait("STATUS=still here");
  two.NotifyAndWait("STATUS=still here");

  Life next = Reborn(&one);
  EXPECT_EQ(next.names, "fuse");
  EXPECT_EQ(next.Do("read fuse"), "of one");
  EXPECT_EQ(ReadFile(Path("one.pid")), PidText(next.pid));
  EXPECT_FALSE(two.EndsWithin(0));
}

TEST_F(StandbyTest, TheStatusSaysWhyThereIsNone) {
  SupervisorOptions options = Options({"one"});
  options.why_no_standby = "the test wants none";
  int told[2];
  ASSERT_EQ(pipe2(told, O_CLOEXEC), 0);
  const UniqueFd reader(told[0]), writer(told[1]);
  options.on_stop = [fd = writer.get()](int signal) {
    const char number = static_cast<char>(signal);
    (void)!write(fd, &number, 1);
  };
  StartSupervisor(options);
  Life one = NextLife("one");
  const nlohmann::json status = WaitStatus([](const auto&) { return true; });
  EXPECT_EQ(status["why_no_standby"], "the test wants none");
  SignalSupervisor(SIGINT);
  char number = 0;
  EXPECT_EQ(read(reader.get(), &number, 1), 1);
  EXPECT_EQ(number, SIGINT);
}

TEST_F(StandbyTest, WhatABarrierHasConfirmedIsKept) {
  StartSupervisor(WithStandby({"one"}));
  Life one = NextLife("one");
  WaitStatus(HasStandby());
  for (int i = 0; i < 5; ++i) {
    const UniqueFd file = MemFile("number " + std::to_string(i));
    one.NotifyAndWait("FDSTORE=1\nFDNAME=n" + std::to_string(i) + "\nFDPOLL=0", {file.get()});
    KillSupervisor();
  }
  Life next = Reborn(&one);
  EXPECT_EQ(next.names, "n0:n1:n2:n3:n4");
  EXPECT_EQ(next.Do("read n4"), "number 4");
}

TEST_F(StandbyTest, TheSupervisorAndAServiceKilledAtOnceComeBack) {
  StartSupervisor(WithStandby({"one", "two"}));
  Life one = NextLife("one"), two = NextLife("two");
  const UniqueFd file = MemFile("of one");
  one.NotifyAndWait("FDSTORE=1\nFDNAME=fuse\nFDPOLL=0", {file.get()});
  WaitStatus(HasStandby());
  kill(one.pid, SIGKILL);
  KillSupervisor();
  Life next = NextLife("one");
  EXPECT_EQ(next.Do("read fuse"), "of one");
  EXPECT_FALSE(two.EndsWithin(0));
}

TEST_F(StandbyTest, OneThatIsKilledIsReplacedAndDisturbsNothing) {
  StartSupervisor(WithStandby({"one"}));
  Life one = NextLife("one");
  const pid_t standby = WaitStatus(HasStandby())["standby"];
  kill(standby, SIGKILL);
  WaitStatus([standby](const auto& status) {
    return status["standby"] != 0 && status["standby"] != standby;
  });
  KillSupervisor();
  EXPECT_EQ(one.Do("barrier"), "1");
}

TEST_F(StandbyTest, AServiceThatHangsAtTheTakeOverIsEndedByItsWatchdog) {
  SupervisorOptions options = WithStandby({"one"});
  options.services[0].watchdog = milliseconds(300);
  StartSupervisor(options);
  Life one = NextLife("one");
  kill(one.pid, SIGSTOP);
  KillSupervisor();
  EXPECT_TRUE(one.EndsWithin(kDeadlineMs));
  Life next = NextLife("one");
  EXPECT_EQ(next.Do("barrier"), "1");
}

TEST_F(StandbyTest, EndsBeforeTheServicesWhenTheSupervisorStops) {
  StartSupervisor(WithStandby({"one"}));
  Life one = NextLife("one");
  EXPECT_EQ(one.Do("ignore 15"), "ok");
  const pid_t standby = WaitStatus(HasStandby())["standby"];
  SignalSupervisor(SIGTERM);
  WaitStatus([](const auto& status) {
    return status["standby"] == 0 && ServiceOf(status, "one")["state"] == "stopping";
  });
  EXPECT_FALSE(one.EndsWithin(0));
  EXPECT_EQ(kill(standby, 0), -1);
  // A supervisor that waits for a service has nothing to do.
  const int64_t ticks = CpuTicks(supervisor_pid());
  EXPECT_FALSE(one.EndsWithin(500));
  EXPECT_LE(CpuTicks(supervisor_pid()) - ticks, 5);
  one.Kill();
  EXPECT_EQ(WaitSupervisor().wait_status, 0);
}

TEST_F(StandbyTest, AServiceThatWasReadyIsStartedAtOnceWhenBothDied) {
  SupervisorOptions options = WithStandby({"one"});
  options.services[0].required_ready = true;
  options.restart.at_once_after = milliseconds(1);
  options.restart.backoff_min = milliseconds(kDeadlineMs);  // Would be noticed.
  StartSupervisor(options);
  Life one = NextLife("one");
  one.NotifyAndWait("READY=1");
  const pid_t supervisor = WaitStatus(HasStandby())["pid"];
  kill(supervisor, SIGSTOP);  // So that it reaps nothing.
  kill(one.pid, SIGKILL);
  ASSERT_TRUE(one.EndsWithin(kDeadlineMs));
  KillSupervisor();
  Life next = NextLife("one");
  EXPECT_EQ(ServiceOf(WaitState("one", "starting"), "one")["restarts"], 1);
}

TEST_F(StandbyTest, AFloodOfOneServiceDelaysNoOther) {
  StartSupervisor(WithStandby({"one", "two"}));
  Life one = NextLife("one"), two = NextLife("two");
  WaitStatus(HasStandby());
  for (int i = 0; i < 200; ++i) one.Notify("STATUS=" + std::to_string(i % 2));
  two.NotifyAndWait("STATUS=here");
  one.NotifyAndWait("STATUS=done");
  // Both services and the standby; copies that were replaced may still be ending.
  const auto deadline = std::chrono::steady_clock::now() + milliseconds(kDeadlineMs);
  while (CountChildren(supervisor_pid()) > 3 && std::chrono::steady_clock::now() < deadline) {
    ASSERT_EQ(two.Do("barrier"), "1");
  }
  EXPECT_EQ(CountChildren(supervisor_pid()), 3u) << "copies that were replaced are left";
}

TEST_F(StandbyTest, OneThatHasTakenOverStops) {
  StartSupervisor(WithStandby({"one", "two"}));
  Life one = NextLife("one"), two = NextLife("two");
  KillSupervisor();
  SignalSupervisor(SIGTERM);
  EXPECT_EQ(WaitSupervisor().wait_status, 0);
  EXPECT_TRUE(one.EndsWithin(0));
  EXPECT_TRUE(two.EndsWithin(0));
  EXPECT_FALSE(std::filesystem::exists(Path("one.pid")));
}

TEST_F(StandbyTest, ASecondSupervisorIsRefusedAlsoAfterATakeOver) {
  StartSupervisor(WithStandby({"one"}));
  Life one = NextLife("one");
  KillSupervisor();
  const auto second = RunSupervisor(Options({"other"}));
  EXPECT_EQ(second.status().error(), EBUSY);
  EXPECT_THAT(second.status().message(), ::testing::HasSubstr(std::to_string(supervisor_pid())));
}

TEST_F(StandbyTest, TwoHundredKillsAtRandomLoseNothing) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  SupervisorOptions options = WithStandby({"one", "two"});
  options.services[0].keep_spare = true;
  options.spare_delay = milliseconds(1);
  StartSupervisor(options);
  Life one = NextLife("one"), two = NextLife("two");
  const UniqueFd file = MemFile("of one");
  one.NotifyAndWait("FDSTORE=1\nFDNAME=fuse\nFDPOLL=0", {file.get()});
  one = Reborn(&one);
  for (int round = 0; round < kRounds; ++round) {
    const bool ends_one = random() % 3 == 0;
    const bool ends_two = random() % 3 == 0;
    if (ends_one) kill(one.pid, SIGKILL);
    if (ends_two) kill(two.pid, SIGKILL);
    if (random() % 2 == 0) KillSupervisor();
    if (ends_one) one = NextLife("one");
    if (ends_two) two = NextLife("two");
    ASSERT_EQ(one.names, "fuse") << "round " << round;
    ASSERT_EQ(one.Do("read fuse"), "of one") << "round " << round;
    ASSERT_EQ(two.Do("barrier"), "1") << "round " << round;
  }
}

}  // namespace
}  // namespace host
