#include "cachecore/system/spawn.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "cachecore/system/process.h"

namespace cachecore {
namespace {

using Group = SpawnOptions::Group;

SpawnOptions Shell(const std::string& script) {
  SpawnOptions options;
  options.argv = {"/bin/sh", "-c", script};
  return options;
}

int EndOf(const SpawnOptions& options) {
  const Result<pid_t> child = Spawn(options);
  EXPECT_TRUE(child.ok()) << child.status().message();
  return child.ok() ? ReapChild(*child) : -1;
}

std::string ReadAll(int fd) {
  std::string text;
  char buffer[512];
  for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;) {
    text.append(buffer, static_cast<size_t>(n));
  }
  return text;
}

// What it prints.
std::string OutputOf(SpawnOptions options) {
  Pipe output = Pipe::Make().value();
  options.output = output.writer.get();
  const Result<pid_t> child = Spawn(options);
  EXPECT_TRUE(child.ok()) << child.status().message();
  output.writer.Reset();
  const std::string text = ReadAll(output.reader.get());
  if (child.ok()) ReapChild(*child);
  return text;
}

TEST(SpawnTest, TheChildGetsTheStandardDescriptorsAndNoOther) {
  const UniqueFd leak(open("/dev/null", O_RDONLY));  // Without O_CLOEXEC, as a shell leaves them.
  EXPECT_EQ(OutputOf(Shell("cd /proc/self/fd && for fd in *; do "
                           "[ $fd = 1 ] || [ ! -e $fd ] || readlink $fd; done")),
            "/dev/null\n/dev/null\n");
  SpawnOptions same = Shell("echo out; echo errors >&2");
  Pipe pipe = Pipe::Make().value();
  same.output = same.errors = pipe.writer.get();
  EXPECT_EQ(EndOf(same), 0);
  pipe.writer.Reset();
  EXPECT_EQ(ReadAll(pipe.reader.get()), "out\nerrors\n");
}

TEST(SpawnTest, ADescriptorWithANumberOfAStandardOneIsNotOverwritten) {
  Pipe pipe = Pipe::Make().value();
  const pid_t child = fork();
  if (child == 0) {
    dup2(pipe.writer.get(), STDIN_FILENO);
    close(STDOUT_FILENO);
    close(STDERR_FILENO);
    SpawnOptions options = Shell("echo out; readlink /proc/self/fd/0");
    options.output = STDIN_FILENO;
    const Result<pid_t> program = Spawn(options);
    _exit(program.ok() ? WEXITSTATUS(ReapChild(*program)) : 1);
  }
  pipe.writer.Reset();
  EXPECT_EQ(ReadAll(pipe.reader.get()), "out\n/dev/null\n");
  EXPECT_EQ(ReapChild(child), 0);
}

TEST(SpawnTest, OneMoreDescriptorIsPassed) {
  Pipe pipe = Pipe::Make().value();
  SpawnOptions options = Shell("echo passed >&3; ls /proc/$$/fd | tr '\\n' ' ' >&3");
  options.passed = pipe.writer.get();
  EXPECT_EQ(EndOf(options), 0);
  pipe.writer.Reset();
  EXPECT_EQ(ReadAll(pipe.reader.get()), "passed\n0 1 2 3 ");
}

TEST(SpawnTest, BlockedAndIgnoredSignalsAreNotInherited) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::signal(SIGPIPE, SIG_IGN);
  for (const int signal : {SIGTERM, SIGPIPE}) {
    const int status = EndOf(Shell("kill -" + std::to_string(signal) + " $$; exit 0"));
    EXPECT_TRUE(WIFSIGNALED(status)) << signal;
    EXPECT_EQ(WTERMSIG(status), signal);
  }
  std::signal(SIGPIPE, SIG_DFL);
  sigset_t now;
  pthread_sigmask(SIG_SETMASK, &before, &now);
  EXPECT_EQ(sigismember(&now, SIGTERM), 1) << "the caller's mask is as it was";
}

TEST(SpawnTest, GroupDirectoryMaskAndEnvironmentAreAsAskedFor) {
  SpawnOptions options =
      Shell("pwd; umask; echo $HERE-$HOME; cut -d' ' -f5,6 /proc/$$/stat; echo $$");
  options.directory = "/usr";
  options.file_mode_mask = 027;
  options.environment = {"PATH=/usr/bin:/bin", "HERE=there"};
  options.group = Group::kOwn;
  const auto lines = [](const std::string& text) {
    std::vector<std::string> split;
    for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos;
         begin = end + 1) {
      split.push_back(text.substr(begin, end - begin));
    }
    split.resize(5);
    return split;
  };
  std::vector<std::string> group = lines(OutputOf(options));
  EXPECT_EQ(group[0], "/usr");
  EXPECT_EQ(group[1], "0027");
  EXPECT_EQ(group[2], "there-");
  EXPECT_EQ(group[3], group[4] + " " + std::to_string(getsid(0)));
  options.group = Group::kOwnSession;
  group = lines(OutputOf(options));
  EXPECT_EQ(group[3], group[4] + " " + group[4]);
  options.group = Group::kOurs;
  group = lines(OutputOf(options));
  EXPECT_EQ(group[3], std::to_string(getpgrp()) + " " + std::to_string(getsid(0)));
}

TEST(SpawnTest, AProgramThatDoesNotRunIsAnErrorAndLeavesNoChild) {
  SpawnOptions options;
  options.argv = {"/nowhere/x"};
  EXPECT_EQ(Spawn(options).status().error(), ENOENT);
  EXPECT_EQ(Spawn(options).status().message(), "run /nowhere/x: No such file or directory");
  options.argv = {"/etc/passwd"};
  EXPECT_EQ(Spawn(options).status().error(), EACCES);
  options = Shell("true");
  options.directory = "/nowhere";
  EXPECT_EQ(Spawn(options).status().message(), "enter its directory: No such file or directory");
  options.directory = "";
  options.in_child = []() -> const char* {
    errno = EXDEV;
    return "the step";
  };
  EXPECT_EQ(Spawn(options).status().error(), EXDEV);
  EXPECT_TRUE(Spawn(options).status().message().starts_with("the step: "));
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a child is left";
}

class FindOnPathTest : public testing::Test {
 protected:
  FindOnPathTest() {
    char name[] = "/tmp/holdfast-spawn-XXXXXX";
    directory_ = mkdtemp(name);
    Make("here", 0755);
    Make("not-run", 0644);
    std::filesystem::create_directory(directory_ + "/folder");
  }
  ~FindOnPathTest() override {
    std::filesystem::current_path("/");
    setenv("PATH", before_.c_str(), 1);
    std::filesystem::remove_all(directory_);
  }
  void Make(const std::string& name, mode_t mode) {
    std::ofstream(directory_ + "/" + name) << "#!/bin/sh\nexit 3\n";
    chmod((directory_ + "/" + name).c_str(), mode);
  }
  void SetPath(const std::string& path) { setenv("PATH", path.c_str(), 1); }

  const std::string before_ = std::getenv("PATH");
  std::string directory_;
};

TEST_F(FindOnPathTest, OnlyProgramsOfAbsoluteDirectoriesAreFound) {
  SetPath("relative::/nowhere:" + directory_);
  EXPECT_EQ(*FindOnPath("here"), directory_ + "/here");
  EXPECT_EQ(FindOnPath("folder").status().error(), ENOENT);
  EXPECT_EQ(FindOnPath("absent").status().error(), ENOENT);
  EXPECT_EQ(FindOnPath("not-run").status().error(), EACCES);
  SpawnOptions options;
  options.argv = {"here"};
  EXPECT_EQ(WEXITSTATUS(EndOf(options)), 3);
  std::filesystem::current_path(directory_);
  SetPath(".:");
  EXPECT_EQ(FindOnPath("here").status().error(), ENOENT);
  EXPECT_EQ(Spawn(options).status().message(), "run here: No such file or directory");
}

}  // namespace
}  // namespace cachecore
