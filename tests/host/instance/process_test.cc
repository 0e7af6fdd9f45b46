#include "cachecore/system/process.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>

#include "cachecore/base/deadline.h"
#include "cachecore/system/bounded_call.h"
#include "cachecore/system/files.h"
#include "cachecore/system/subprocess.h"
#include "host/instance/supervisor_process.h"
#include "tests/host/instance/temporary_directory.h"

namespace host {
namespace {

using cachecore::CallInChild;
using cachecore::CreateFileExclusively;
using cachecore::Deadline;
using cachecore::EndProcess;
using cachecore::FindProgram;
using cachecore::kPidStampBytesMax;
using cachecore::ListDirectory;
using cachecore::MakeDirectories;
using cachecore::OwnPidStamp;
using cachecore::PinnedProcess;
using cachecore::PinPidFile;
using cachecore::PinProcess;
using cachecore::ProcessStart;
using cachecore::PutPidStamp;
using cachecore::ReadFile;
using cachecore::RemoveAbandonedWrites;
using cachecore::Result;
using cachecore::RunProgram;
using cachecore::RunsProgram;
using cachecore::SpawnDetached;
using cachecore::Status;
using cachecore::UniqueFd;
using cachecore::WaitUntil;
using cachecore::WriteFileAtomically;
using std::chrono::milliseconds;

constexpr milliseconds kLong{20'000};

TEST(CallInChildTest, GivesBackValuesAndErrors) {
  const auto value =
      CallInChild([]() -> Result<std::string> { return std::string("a\0b", 3); }, Deadline(kLong));
  ASSERT_TRUE(value.ok()) << value.status().message();
  EXPECT_EQ(*value, std::string("a\0b", 3));
  const auto error =
      CallInChild([]() -> Result<std::string> { return Status(ENOENT, "gone"); }, Deadline(kLong));
  EXPECT_EQ(error.status().error(), ENOENT);
  EXPECT_EQ(error.status().message(), "gone");
}

TEST(CallInChildTest, ALargeValueComesWhole) {
  const std::string text(1 << 20, 'x');
  const auto value = CallInChild([&]() -> Result<std::string> { return text; }, Deadline(kLong));
  ASSERT_TRUE(value.ok());
  EXPECT_EQ(*value, text);
}

TEST(CallInChildTest, ACallThatWaitsForEverIsEndedAtTheDeadline) {
  int ends[2];  // The child keeps the read end; its death is seen on the write end.
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  UniqueFd reader(ends[0]), writer(ends[1]);
  const auto wait = []() -> Result<std::string> {
    for (;;) pause();
  };
  const Status ended = CallInChild(wait, Deadline(milliseconds(50)), {reader.get()}).status();
  EXPECT_EQ(ended.error(), ETIMEDOUT);
  reader.Reset();
  pollfd entry = {writer.get(), 0, 0};
  ASSERT_EQ(poll(&entry, 1, static_cast<int>(kLong.count())), 1);
  EXPECT_NE(entry.revents & POLLERR, 0) << "the child lives";
}

// One that no signal ends is left behind, and must not keep what others wait for.
TEST(CallInChildTest, TheChildHasNoDescriptorButWhatItIsGiven) {
  const UniqueFd lock(open("/dev/zero", O_RDONLY | O_CLOEXEC));
  const UniqueFd given(open("/dev/full", O_RDONLY | O_CLOEXEC));
  const auto list = []() -> Result<std::string> {
    std::string text;
    for (int fd = 0; fd < 1024; ++fd) {
      char target[64] = {};
      const std::string link = "/proc/self/fd/" + std::to_string(fd);
      if (readlink(link.c_str(), target, sizeof target - 1) < 0) continue;
      text += std::string(target).substr(0, std::string(target).find(':')) + " ";
    }
    return text;
  };
  const Result<std::string> open_there = CallInChild(list, Deadline(kLong), {given.get()});
  ASSERT_TRUE(open_there.ok()) << open_there.status().message();
  EXPECT_EQ(*open_there, "/dev/null /dev/null /dev/null /dev/full socket ");
}

TEST(CallInChildTest, AChildThatDiesIsAnError) {
  const auto result = CallInChild(
      []() -> Result<std::string> {
        raise(SIGKILL);
        return std::string();
      },
      Deadline(kLong));
  EXPECT_EQ(result.status().error(), EIO);
}

class ProcessTest : public testing::Test {
 protected:
  ProcessTest() { EXPECT_TRUE(MakeDirectories(instance_.RunDir(), 0755).ok()); }
  ~ProcessTest() override {
    unsetenv("HOLDFAST_BIN_DIR");
    if (child_ > 0) {
      kill(child_, SIGKILL);
      waitpid(child_, nullptr, 0);
    }
  }

  TemporaryDirectory box_;
  const Instance instance_ = *Instance::Make(box_.path(), "one");
  pid_t child_ = 0;
};

TEST_F(ProcessTest, OnlyALockMakesAPidFileCount) {
  EXPECT_EQ(SupervisorPid(instance_), 0);
  ASSERT_TRUE(
      WriteFileAtomically(instance_.PidFile(kSupervisor), std::to_string(getpid()), 0644).ok());
  EXPECT_EQ(SupervisorPid(instance_), 0);
}

TEST_F(ProcessTest, ASupervisorIsKnownWhileItLives) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  child_ = fork();
  if (child_ == 0) {
    const auto held = SupervisorPidFile::Hold(instance_);
    (void)!write(writer.get(), held.ok() ? "y" : "n", 1);
    for (;;) pause();
  }
  char held = '?';
  ASSERT_EQ(read(reader.get(), &held, 1), 1);
  ASSERT_EQ(held, 'y');
  EXPECT_EQ(SupervisorPid(instance_), child_);
  const auto second = SupervisorPidFile::Hold(instance_);
  EXPECT_EQ(second.status().error(), EBUSY);
  EXPECT_EQ(second.status().message(),
            "instance one is already supervised by process " + std::to_string(child_));
  EXPECT_TRUE(EndProcess(PinSupervisor(instance_), SIGKILL, kLong).ok());
  EXPECT_EQ(SupervisorPid(instance_), 0);
}

// A supervisor, and a standby that takes over when the supervisor has died.
void RunSupervisorWithStandby(const Instance& instance, int told) {
  const auto held = SupervisorPidFile::Hold(instance);
  int ends[2];
  PCHECK(pipe2(ends, O_CLOEXEC) == 0);
  const pid_t standby = fork();
  if (standby == 0) {
    close(ends[1]);
    held->HoldAsStandby();
    PCHECK(write(told, "y", 1) == 1);
    char byte;
    while (read(ends[0], &byte, 1) < 0) {
    }
    held->TakeOver();
    PCHECK(write(told, "y", 1) == 1);
  }
  for (;;) pause();
}

TEST_F(ProcessTest, AStandbyIsKnownFromItsSupervisorsDeathOn) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const UniqueFd reader(ends[0]);
  const UniqueFd writer(ends[1]);
  child_ = fork();
  if (child_ == 0) RunSupervisorWithStandby(instance_, writer.get());
  char told = '?';
  ASSERT_EQ(read(reader.get(), &told, 1), 1);
  EXPECT_EQ(SupervisorPid(instance_), child_);
  kill(child_, SIGKILL);
  const pid_t standby = SupervisorPid(instance_);
  EXPECT_NE(standby, 0);
  ASSERT_EQ(read(reader.get(), &told, 1), 1);
  EXPECT_NE(SupervisorPid(instance_), child_);
  EXPECT_TRUE(TerminateSupervisor(instance_, kLong).ok());
  EXPECT_EQ(SupervisorPid(instance_), 0);
}

TEST_F(ProcessTest, ASupervisorIsKilledTogetherWithItsStandby) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const UniqueFd reader(ends[0]);
  const UniqueFd writer(ends[1]);
  child_ = fork();
  if (child_ == 0) RunSupervisorWithStandby(instance_, writer.get());
  char told = '?';
  ASSERT_EQ(read(reader.get(), &told, 1), 1);
  EXPECT_TRUE(KillSupervisor(instance_, kLong).ok());
  EXPECT_EQ(SupervisorPid(instance_), 0);
}

TEST_F(ProcessTest, AStoppedSupervisorOrStandbyIsNamedAndStillEnds) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const UniqueFd reader(ends[0]);
  const UniqueFd writer(ends[1]);
  child_ = fork();
  if (child_ == 0) RunSupervisorWithStandby(instance_, writer.get());
  char told = '?';
  ASSERT_EQ(read(reader.get(), &told, 1), 1);
  EXPECT_TRUE(CheckSupervisorRuns(instance_).ok());
  Status stopped;
  const auto is_seen = [&] {
    stopped = CheckSupervisorRuns(instance_);
    return !stopped.ok();
  };
  kill(child_, SIGSTOP);
  ASSERT_TRUE(WaitUntil(is_seen, Deadline(kLong)).ok());
  EXPECT_EQ(stopped.error(), EBUSY);
  const std::string pid = std::to_string(child_);
  EXPECT_EQ(stopped.message(), "its supervisor (process " + pid +
                                   ") is stopped, and would restart nothing; let it go on: "
                                   "kill -CONT " +
                                   pid);
  kill(child_, SIGKILL);
  ASSERT_EQ(read(reader.get(), &told, 1), 1);  // The standby is the supervisor.
  const pid_t standby = SupervisorPid(instance_);
  kill(standby, SIGSTOP);
  EXPECT_TRUE(WaitUntil(is_seen, Deadline(kLong)).ok());
  EXPECT_TRUE(TerminateSupervisor(instance_, kLong).ok());
  EXPECT_EQ(SupervisorPid(instance_), 0);
}

TEST_F(ProcessTest, AProcessThatIgnoresTheSignalIsReported) {
  child_ = fork();
  if (child_ == 0) {
    for (;;) pause();
  }
  const Status status = EndProcess(PinProcess(child_), 0, milliseconds(20));
  EXPECT_EQ(status.error(), ETIMEDOUT);
  EXPECT_EQ(status.message(), "process " + std::to_string(child_) + " does not end");
}

TEST(RunProgramTest, GivesOutputAndExitCode) {
  const auto end = RunProgram({"/bin/sh", "-c", "echo out; echo err >&2; exit 7"}, Deadline(kLong));
  ASSERT_TRUE(end.ok());
  EXPECT_EQ(end->output, "out\nerr\n");
  EXPECT_EQ(end->exit_code, 7);
}

TEST(RunProgramTest, OneThatDoesNotEndIsKilledAtTheDeadline) {
  const auto end = RunProgram({"/bin/sleep", "600"}, Deadline(milliseconds(50)));
  EXPECT_EQ(end.status().error(), ETIMEDOUT);
}

TEST(RunProgramTest, ASignalIsNamedAsAShellDoes) {
  const auto end = RunProgram({"/bin/sh", "-c", "kill -9 $$"}, Deadline(kLong));
  ASSERT_TRUE(end.ok());
  EXPECT_EQ(end->exit_code, 128 + SIGKILL);
}

TEST_F(ProcessTest, ASpawnedProgramHasItsOutputInTheLogAndNoneOfOurDescriptors) {
  const UniqueFd leak(open("/dev/null", O_RDONLY));  // Without O_CLOEXEC, as a shell leaves them.
  const auto child = SpawnDetached(
      {"/bin/sh", "-c", "echo hello; ls /proc/self/fd | wc -l; readlink /proc/self/fd/0"},
      box_ / "log");
  ASSERT_TRUE(child.ok());
  ASSERT_EQ(waitpid(*child, nullptr, 0), *child);
  const auto log = ReadFile(box_ / "log");
  ASSERT_TRUE(log.ok());
  // ls itself has its directory open besides 0, 1 and 2.
  EXPECT_EQ(*log, "hello\n4\n/dev/null\n");
}

TEST_F(ProcessTest, ProgramsAreSoughtWhereTheEnvironmentSays) {
  setenv("HOLDFAST_BIN_DIR", box_.path().c_str(), 1);
  const auto missing = FindProgram("holdfastd");
  EXPECT_EQ(missing.status().message(),
            "holdfastd is not in $HOLDFAST_BIN_DIR (" + box_.path() + ")");
  ASSERT_TRUE(CreateFileExclusively(box_ / "holdfastd", "", 0755).ok());
  EXPECT_EQ(*FindProgram("holdfastd"), box_ / "holdfastd");
  unsetenv("HOLDFAST_BIN_DIR");
  EXPECT_TRUE(FindProgram("sh")->ends_with("/sh"));
  EXPECT_NE(FindProgram("no-such-program").status().message().find("set HOLDFAST_BIN_DIR"),
            std::string::npos);
}

TEST_F(ProcessTest, AStartIsKnownWhateverTheProcessIsCalled) {
  const std::optional<uint64_t> start = ProcessStart(getpid());
  ASSERT_TRUE(start.has_value());
  char name[16];
  ASSERT_EQ(prctl(PR_GET_NAME, name), 0);
  ASSERT_EQ(prctl(PR_SET_NAME, "a) R 1 ("), 0);
  EXPECT_EQ(ProcessStart(getpid()), start);
  ASSERT_EQ(prctl(PR_SET_NAME, name), 0);
  EXPECT_EQ(ProcessStart(0), std::nullopt);
}

TEST_F(ProcessTest, APidFileNamesNoLaterProcessOfTheSameNumber) {
  child_ = fork();
  if (child_ == 0) {
    for (;;) pause();
  }
  const std::string file = box_ / "service.pid";
  const uint64_t start = *ProcessStart(child_);
  const auto pid_in = [&](const std::string& text) {
    EXPECT_TRUE(WriteFileAtomically(file, text, 0600).ok());
    return PinPidFile(file).pid;
  };
  char text[kPidStampBytesMax];
  const std::string stamp(text, PutPidStamp(child_, ' ', text));
  EXPECT_EQ(stamp, std::to_string(child_) + " " + std::to_string(start));
  EXPECT_EQ(pid_in(stamp + "\n"), child_);
  EXPECT_EQ(pid_in(std::to_string(child_) + "\n"), child_) << "as earlier versions wrote it";
  EXPECT_EQ(pid_in(std::to_string(child_) + " " + std::to_string(start + 1) + "\n"), 0);
  for (const char* nothing : {"", "rubbish", "-1", "0", "999999999 1"}) {
    EXPECT_EQ(pid_in(nothing), 0) << nothing;
  }
  EXPECT_EQ(PinPidFile(box_ / "none").pid, 0);
}

TEST_F(ProcessTest, WhatADeadWriterLeftIsRemovedAndWhatALivingOneWritesIsNot) {
  const std::string living = "a.json.new" + OwnPidStamp('.');
  const std::string reused = "b.json.new" + std::to_string(getpid()) + ".1";
  for (const std::string& name :
       {living, reused, std::string("c.json.new999999999"), std::string("d.json"),
        std::string("e.newer"), std::string("f.new")}) {
    ASSERT_TRUE(CreateFileExclusively(box_ / name, "", 0600).ok());
  }
  RemoveAbandonedWrites(box_.path());
  std::vector<std::string> left = ListDirectory(box_.path());
  std::erase_if(left, [](const std::string& name) { return name.size() < 2 || name[1] != '.'; });
  std::erase(left, "e.newer");
  EXPECT_EQ(left, (std::vector<std::string>{living, "d.json", "f.new"}));
}

TEST_F(ProcessTest, AProgramAndAWholeArgumentTellWhoseProcessItIs) {
  child_ = *SpawnDetached({"/bin/sh", "-c", "sleep 600; :", "--run-dir=/run/a"}, box_ / "log");
  const auto is_exec_ed = [&] { return RunsProgram(child_, "dash", "sleep 600; :"); };
  if (std::filesystem::canonical("/bin/sh").filename() != "dash") GTEST_SKIP() << "sh is not dash";
  ASSERT_TRUE(WaitUntil(is_exec_ed, Deadline(kLong)).ok());
  EXPECT_TRUE(RunsProgram(child_, "dash", "--run-dir=/run/a"));
  EXPECT_FALSE(RunsProgram(child_, "dash", "--run-dir=/run"));
  EXPECT_FALSE(RunsProgram(child_, "holdfastd", "--run-dir=/run/a"));
}

TEST_F(ProcessTest, AnEndedProcessIsNotSignalled) {
  EXPECT_EQ(PinProcess(0).pid, 0);
  child_ = fork();
  if (child_ == 0) _exit(0);
  const PinnedProcess process = PinProcess(child_);
  ASSERT_EQ(waitpid(child_, nullptr, 0), child_);
  child_ = 0;
  EXPECT_TRUE(EndProcess(process, SIGTERM, milliseconds(20)).ok());
}

}  // namespace
}  // namespace host
