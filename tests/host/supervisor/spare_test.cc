#include "host/supervisor/spare.h"

#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "tests/host/supervisor/supervisor_harness.h"

namespace host {
namespace {

using cachecore::UniqueFd;
using nlohmann::json;
using std::chrono::milliseconds;

class SpareTest : public SupervisorHarness {
 protected:
  SupervisorOptions WithSpare() const {
    SupervisorOptions options = Options({"one"});
    options.services[0].keep_spare = true;
    options.spare_delay = milliseconds(0);
    options.spare_patience = milliseconds(30000);  // A spare that is slow has not failed.
    return options;
  }
  // Of the spare that there is, or will be.
  pid_t SparePid(pid_t not_this = 0) {
    pid_t pid = 0;
    WaitStatus([&](const json& status) {
      pid = ServiceOf(status, "one")["spare"];
      return pid != 0 && pid != not_this;
    });
    return pid;
  }
  static bool EndsWithin(pid_t pid, int ms) {
    UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
    pollfd end{.fd = pidfd.get(), .events = POLLIN, .revents = 0};
    return !pidfd.valid() || poll(&end, 1, ms) == 1;
  }
};

TEST_F(SpareTest, TakesOverWithAllThatWasStoredWhenTheServiceDies) {
  StartSupervisor(WithSpare());
  Life life = NextLife("one");
  UniqueFd first = MemFile("the first"), second = MemFile("the second");
  life.NotifyAndWait("FDSTORE=1\nFDNAME=a", {first.get()});
  life.NotifyAndWait("FDSTORE=1\nFDNAME=b\nFDPOLL=0", {second.get()});
  for (int death = 0; death < 3; ++death) {
    const pid_t spare = SparePid(life.pid);  // The status may still call this life a spare.
    life = Reborn(&life);
    EXPECT_EQ(life.pid, spare);
    EXPECT_EQ(ReadFile(Path("one.pid")), PidText(spare));
    EXPECT_EQ(life.names, "a:b");
    EXPECT_EQ(life.Do("read a"), "the first");
    EXPECT_EQ(life.Do("read b"), "the second");
  }
}

TEST_F(SpareTest, TakesOverFromAServiceThatStoredNothing) {
  StartSupervisor(WithSpare());
  Life life = NextLife("one");
  const pid_t spare = SparePid();
  life = Reborn(&life);
  EXPECT_EQ(life.pid, spare);
  EXPECT_EQ(life.passed, 0);
}

TEST_F(SpareTest, OneThatIsKilledIsReplacedAndDisturbsNothing) {
  StartSupervisor(WithSpare());
  Life life = NextLife("one");
  const pid_t spare = SparePid();
  kill(spare, SIGKILL);
  const pid_t next = SparePid(spare);
  EXPECT_FALSE(life.EndsWithin(0));
  life = Reborn(&life);
  EXPECT_EQ(life.pid, next);
}

TEST_F(SpareTest, WhenBothAreKilledAtOnceTheServiceStartsWithoutIt) {
  StartSupervisor(WithSpare());
  Life life = NextLife("one");
  UniqueFd file = MemFile("kept");
  life.NotifyAndWait("FDSTORE=1\nFDNAME=f", {file.get()});
  const pid_t spare = SparePid();
  SignalSupervisor(SIGSTOP);
  life.Kill();
  kill(spare, SIGKILL);
  ASSERT_TRUE(EndsWithin(spare, kDeadlineMs));
  SignalSupervisor(SIGCONT);
  life = NextLife("one");
  EXPECT_NE(life.pid, spare);
  EXPECT_EQ(life.Do("read f"), "kept");
}

TEST_F(SpareTest, AHungSpareIsEndedAndTheServiceStartsWithoutIt) {
  SupervisorOptions options = WithSpare();
  options.spare_patience = milliseconds(50);
  StartSupervisor(options);
  Life life = NextLife("one");
  UniqueFd file = MemFile("kept");
  life.NotifyAndWait("FDSTORE=1\nFDNAME=f", {file.get()});
  const pid_t spare = SparePid();
  kill(spare, SIGSTOP);
  life = Reborn(&life);
  EXPECT_NE(life.pid, spare);
  EXPECT_TRUE(EndsWithin(spare, kDeadlineMs));
  EXPECT_EQ(life.Do("read f"), "kept");
}

TEST_F(SpareTest, IsNotUsedAfterAServiceThatEndedByItself) {
  StartSupervisor(WithSpare());
  Life life = NextLife("one");
  const pid_t spare = SparePid();
  life.Do("exit 0");
  life = NextLife("one");
  EXPECT_NE(life.pid, spare);
  EXPECT_TRUE(EndsWithin(spare, kDeadlineMs));
  EXPECT_NE(SparePid(spare), life.pid);
}

TEST_F(SpareTest, IsNotUsedOnceItsProgramWasReplaced) {
  SupervisorOptions options = WithSpare();
  const std::string program = Path("program");
  std::filesystem::copy_file(options.services[0].argv[0], program);
  options.services[0].argv[0] = program;
  StartSupervisor(options);
  Life life = NextLife("one");
  const pid_t spare = SparePid();
  std::filesystem::copy_file(program, program + ".new");
  std::filesystem::rename(program + ".new", program);
  life = Reborn(&life);
  EXPECT_NE(life.pid, spare);
  EXPECT_TRUE(EndsWithin(spare, kDeadlineMs));
}

TEST_F(SpareTest, EndsWhenTheSupervisorIsToldToStop) {
  StartSupervisor(WithSpare());
  Life life = NextLife("one");
  const pid_t spare = SparePid();
  SignalSupervisor(SIGTERM);
  EXPECT_EQ(WEXITSTATUS(WaitSupervisor().wait_status), 0);
  EXPECT_TRUE(EndsWithin(spare, 0));
}

TEST_F(SpareTest, EndsByItselfWhenTheSupervisorIsKilled) {
  StartSupervisor(WithSpare());
  Life life = NextLife("one");
  const pid_t spare = SparePid();
  SignalSupervisor(SIGKILL);
  EXPECT_TRUE(EndsWithin(spare, kDeadlineMs));
  EXPECT_FALSE(life.EndsWithin(0));
}

TEST_F(SpareTest, IsNotUsedBeforeItIsFit) {
  setenv("HOLDFAST_TEST_NEVER_FIT", "1", 1);
  SupervisorOptions options = WithSpare();
  options.spare_patience = milliseconds(kDeadlineMs);
  StartSupervisor(options);
  unsetenv("HOLDFAST_TEST_NEVER_FIT");
  Life life = NextLife("one");
  for (int death = 0; death < 3; ++death) {
    life = Reborn(&life);
    EXPECT_EQ(ServiceOf(WaitState("one", "ready"), "one")["spare"], 0);
  }
}

TEST_F(SpareTest, WaitsUntilTheServiceIsReady) {
  SupervisorOptions options = WithSpare();
  options.services[0].required_ready = true;
  StartSupervisor(options);
  Life life = NextLife("one");
  EXPECT_EQ(ServiceOf(WaitState("one", "starting"), "one")["spare"], 0);
  life.Notify("READY=1");
  EXPECT_NE(SparePid(), 0);
}

}  // namespace
}  // namespace host
