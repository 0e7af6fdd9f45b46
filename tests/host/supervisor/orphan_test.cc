#include "host/notify/orphan.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "tests/host/supervisor/supervisor_fixture.h"

namespace host {
namespace {

using cachecore::UniqueFd;
using std::chrono::milliseconds;

// As a container may.
void ForbidCopiesOfDescriptors() {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pidfd_getfd, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {.len = std::size(code), .filter = code};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) _exit(99);
}

class OrphanTest : public SupervisorTest {
 protected:
  void LoseSupervisor() {
    SignalSupervisor(SIGKILL);
    WaitSupervisor();
  }
  // Of a service: stored with the supervisor and listed.
  static void Store(Life* life, const std::string& name, int fd) {
    life->NotifyAndWait("FDSTORE=1\nFDNAME=" + name, {fd});
    EXPECT_EQ(life->Do("list " + name, {fd}), "ok");
  }
  static std::vector<UniqueFd> MemFiles(size_t count) {
    std::vector<UniqueFd> files;
    for (size_t i = 0; i < count; ++i) files.push_back(MemFile("one of many"));
    return files;
  }
  static std::vector<int> Numbers(const std::vector<UniqueFd>& files) {
    std::vector<int> numbers;
    for (const UniqueFd& file : files) numbers.push_back(file.get());
    return numbers;
  }
  // Of a look for service "one".
  int ErrorWhereCopiesAreForbidden(const std::vector<std::string>& argv) {
    const pid_t child = fork();
    if (child == 0) {
      ForbidCopiesOfDescriptors();
      const auto found = FindOrphan(Path("one.pid"), argv[0], argv, milliseconds(0));
      _exit(found.status().error());
    }
    int status = -1;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  nlohmann::json WaitPid(const std::string& name, pid_t pid) {
    return ServiceOf(WaitStatus([&](const nlohmann::json& status) {
                       return status.value("pid", 0) == supervisor_pid() &&
                              ServiceOf(status, name).value("pid", 0) == pid;
                     }),
                     name);
  }
};

TEST_F(OrphanTest, TheNextSupervisorGoesOnWithWhatLivesAndWithWhatItHadStored) {
  StartSupervisor(Options({"one", "two"}));
  Life one = NextLife("one"), two = NextLife("two");
  Store(&one, "mine", MemFile("of one").get());
  Store(&two, "mine", MemFile("of two").get());
  LoseSupervisor();
  StartSupervisor(Options({"one", "two"}));
  EXPECT_EQ(WaitPid("one", one.pid)["fd_store"], nlohmann::json({"mine"}));
  EXPECT_EQ(WaitPid("two", two.pid)["state"], "ready");
  one.NotifyAndWait("FDSTORE=1\nFDNAME=later", {MemFile("after it").get()});
  Life next = Reborn(&one);
  EXPECT_EQ(next.names, "mine:later");
  EXPECT_EQ(next.Do("read mine"), "of one");
  EXPECT_EQ(next.Do("read later"), "after it");
  EXPECT_EQ(Reborn(&two).Do("read mine"), "of two");
  TellSupervisorToStop();
}

TEST_F(OrphanTest, OneThatIsStoppedKeepsWhatItHadStored) {
  StartSupervisor(Options({"one"}));
  Life life = NextLife("one");
  Store(&life, "mine", MemFile("of one").get());
  LoseSupervisor();
  kill(life.pid, SIGSTOP);
  StartSupervisor(Options({"one"}));
  WaitPid("one", life.pid);
  life.Kill();
  EXPECT_EQ(NextLife("one").Do("read mine"), "of one");
}

TEST_F(OrphanTest, WhatIsDeadIsStarted) {
  StartSupervisor(Options({"one", "two"}));
  Life one = NextLife("one"), two = NextLife("two");
  EXPECT_EQ(one.Do("list "), "ok");
  LoseSupervisor();
  two.Kill();
  StartSupervisor(Options({"one", "two"}));
  NextLife("two");
  EXPECT_EQ(one.Do("barrier"), "1") << "it has another socket, at the same path";
  WaitPid("one", one.pid);
}

TEST_F(OrphanTest, OneThatIsNotReadyIsWaitedForAndHasItsTimeToBe) {
  SupervisorOptions options = Options({"one"});
  options.services[0].required_ready = true;
  StartSupervisor(options);
  Life life = NextLife("one");
  Store(&life, "mine", MemFile("of one").get());
  LoseSupervisor();
  StartSupervisor(options);
  EXPECT_EQ(WaitPid("one", life.pid)["state"], "starting");
  life.NotifyAndWait("READY=1");
  WaitState("one", "ready");
}

TEST_F(OrphanTest, OneThatWasReadyIs) {
  SupervisorOptions options = Options({"one"});
  options.services[0].required_ready = true;
  StartSupervisor(options);
  Life life = NextLife("one");
  EXPECT_EQ(life.Do("list "), "ok");
  life.NotifyAndWait("READY=1");
  LoseSupervisor();
  StartSupervisor(options);
  EXPECT_EQ(WaitPid("one", life.pid)["state"], "ready");
}

TEST_F(OrphanTest, OneThatHasNotListedYetIsWaitedFor) {
  SupervisorOptions options = Options({"one"});
  StartSupervisor(options);
  Life life = NextLife("one");
  LoseSupervisor();
  options.list_time = milliseconds(60'000);
  StartSupervisor(options);
  EXPECT_FALSE(life.EndsWithin(50));
  EXPECT_EQ(life.Do("list mine", {MemFile("of one").get()}), "ok");
  WaitPid("one", life.pid);
  EXPECT_EQ(Reborn(&life).Do("read mine"), "of one");
}

TEST_F(OrphanTest, OneThatRunsWithOtherOptionsIsLeftAlone) {
  SupervisorOptions options = Options({"one"});
  StartSupervisor(options);
  Life life = NextLife("one");
  EXPECT_EQ(life.Do("list "), "ok");
  LoseSupervisor();
  options.services[0].argv.push_back("--other");
  const SupervisorExit end = Refused(options);
  EXPECT_EQ(end.error, EBUSY);
  EXPECT_NE(end.message.find("runs with other options"), std::string::npos) << end.message;
  EXPECT_FALSE(life.EndsWithin(50));
}

// Its pid file does not name a process that may be ended: the next one would run beside it.
TEST_F(OrphanTest, OneThatRunsWithOtherOptionsIsToldAlsoWhereItMayNotBeCopiedFrom) {
  StartSupervisor(Options({"one"}));
  Life life = NextLife("one");
  EXPECT_EQ(life.Do("list "), "ok");
  EXPECT_EQ(ErrorWhereCopiesAreForbidden(Spec("one").argv), EPERM);
  std::vector<std::string> other = Spec("one").argv;
  other.push_back("--other");
  EXPECT_EQ(ErrorWhereCopiesAreForbidden(other), EBUSY);
}

TEST_F(OrphanTest, OneThatStoresNothingIsStartedAgainAtOnce) {
  SupervisorOptions options = Options({"one", "two"});
  options.services[1].fd_store_max = 0;
  StartSupervisor(options);
  Life one = NextLife("one"), two = NextLife("two");
  Store(&one, "mine", MemFile("of one").get());
  LoseSupervisor();
  options.list_time = milliseconds(60'000);
  StartSupervisor(options);
  EXPECT_NE(NextLife("two").pid, two.pid);
  WaitPid("one", one.pid);
}

// More than the store takes.
TEST_F(OrphanTest, OneThatCannotBeAdoptedIsStartedAgainAndCostsTheOthersNothing) {
  SupervisorOptions options = Options({"one", "two"});
  const std::vector<UniqueFd> files = MemFiles(options.services[1].fd_store_max + 1);
  options.services[0].required_ready = true;
  options.services[1].stored_fds = {{"given", files[0].get()}};
  StartSupervisor(options);
  Life one = NextLife("one"), two = NextLife("two");
  Store(&one, "mine", MemFile("of one").get());
  EXPECT_EQ(two.Do("list mine", Numbers(files)), "ok");
  LoseSupervisor();
  StartSupervisor(options);
  const Life next = NextLife("two");
  EXPECT_NE(next.pid, two.pid);
  EXPECT_EQ(next.names, "given");
  EXPECT_EQ(WaitPid("one", one.pid)["fd_store"], nlohmann::json({"mine"}));
}

// And so are the others, which serve it: there is no supervisor that could start them again.
TEST_F(OrphanTest, OneThatIsRequiredAndCannotBeAdoptedIsLeftAlone) {
  SupervisorOptions options = Options({"one", "two", "three"});
  options.services[0].required_ready = true;
  options.services[2].fd_store_max = 0;
  StartSupervisor(options);
  Life one = NextLife("one"), two = NextLife("two"), three = NextLife("three");
  const auto files = MemFiles(options.services[0].fd_store_max + 1);
  EXPECT_EQ(one.Do("list mine", Numbers(files)), "ok");
  EXPECT_EQ(two.Do("list mine", Numbers(files)), "ok");
  LoseSupervisor();
  const SupervisorExit end = Refused(options);
  EXPECT_EQ(end.error, ENOSPC);
  EXPECT_NE(end.message.find("descriptor 'mine' has no room"), std::string::npos) << end.message;
  for (Life* life : {&one, &two, &three}) EXPECT_FALSE(life->EndsWithin(50)) << life->pid;
}

TEST_F(OrphanTest, AProgramIsNotExchangedWhereAnotherOneCouldNotGoOn) {
  SupervisorOptions options = Options({"one"});
  options.services[0].required_ready = true;
  options.keep_standby = true;
  options.on_start = ForbidCopiesOfDescriptors;
  options.on_exchange = [this](const std::vector<StoredBy>&) {
    std::ofstream(Path("exchanged")) << "yes";
    return cachecore::Status(EIO, "it was tried");
  };
  StartSupervisor(options);
  Life life = NextLife("one");
  Store(&life, "mine", MemFile("of one").get());
  const pid_t standby = WaitStatus([](const nlohmann::json& now) {
    return now.value("standby", 0) != 0 && !ServiceOf(now, "one")["fd_store"].empty();
  })["standby"];
  for (int asked = 1; asked <= 2; ++asked) {
    SignalSupervisor(SIGUSR2);
    const auto status = WaitStatus(
        [&](const nlohmann::json& now) { return now.value("exchanges_refused", 0) == asked; });
    EXPECT_NE(status["why_not_exchanged"].get<std::string>().find("could not go on with one: "),
              std::string::npos)
        << status;
    EXPECT_EQ(status["standby"], standby);
    EXPECT_EQ(ServiceOf(status, "one")["pid"], life.pid);
  }
  EXPECT_EQ(ReadFile(Path("exchanged")), "");
  EXPECT_EQ(Reborn(&life).Do("read mine"), "of one");
}

TEST_F(OrphanTest, AnExchangeThatFailsIsToldAndTheOldProgramGoesOn) {
  SupervisorOptions options = Options({"one"});
  options.on_exchange = [](const std::vector<StoredBy>& stored) {
    return cachecore::Status(ENOENT, std::to_string(stored.size()) + " stored");
  };
  StartSupervisor(options);
  Life life = NextLife("one");
  Store(&life, "mine", MemFile("of one").get());
  SignalSupervisor(SIGUSR2);
  const auto status =
      WaitStatus([](const nlohmann::json& now) { return now.value("exchanges_refused", 0) == 1; });
  EXPECT_EQ(status["why_not_exchanged"], "1 stored");
  EXPECT_EQ(Reborn(&life).Do("read mine"), "of one");
}

TEST_F(OrphanTest, ANameThatIsNotValidIsLeftOut) {
  StartSupervisor(Options({"one"}));
  Life life = NextLife("one");
  EXPECT_EQ(life.Do("list a:b", {MemFile("of one").get()}), "ok");
  LoseSupervisor();
  StartSupervisor(Options({"one"}));
  EXPECT_EQ(WaitPid("one", life.pid)["fd_store"], nlohmann::json::array());
}

TEST_F(OrphanTest, AHungUpConnectionGoesAsItWouldHaveGone) {
  StartSupervisor(Options({"one"}));
  Life life = NextLife("one");
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  UniqueFd ours(ends[0]), theirs(ends[1]);
  Store(&life, "line", theirs.get());
  theirs.Reset();
  LoseSupervisor();
  ours.Reset();
  StartSupervisor(Options({"one"}));
  WaitStatus([&](const nlohmann::json& status) {
    return status.value("pid", 0) == supervisor_pid() &&
           ServiceOf(status, "one")["fd_store"] == nlohmann::json::array();
  });
}

TEST_F(OrphanTest, AStandbyHasWhatWasAdopted) {
  SupervisorOptions options = Options({"one"});
  StartSupervisor(options);
  Life life = NextLife("one");
  Store(&life, "mine", MemFile("of one").get());
  LoseSupervisor();
  options.keep_standby = true;
  StartSupervisor(options);
  const pid_t first = supervisor_pid();
  const auto status = WaitStatus([&](const nlohmann::json& now) {
    return now.value("pid", 0) == first && now.value("standby", 0) != 0;
  });
  SignalSupervisor(SIGKILL);
  const auto next = WaitStatus([&](const nlohmann::json& now) {
    return now.value("pid", 0) != first && now.value("standby", 0) != 0;
  });
  FollowSupervisor(next["pid"]);
  EXPECT_EQ(Reborn(&life).Do("read mine"), "of one");
}

}  // namespace
}  // namespace host
