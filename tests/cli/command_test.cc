#include "cli/command.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdio_ext.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <iostream>

#include "cachecore/base/deadline.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/system/files.h"
#include "host/instance/settings.h"
#include "host/instance/supervisor_process.h"
#include "host/service/instance_control.h"
#include "tests/host/instance/temporary_directory.h"

namespace cli {
namespace {

using cachecore::CreateFileExclusively;
using cachecore::JsonString;
using cachecore::JsonStrings;
using cachecore::ListDirectory;
using cachecore::LockDirectory;
using cachecore::MakeDirectories;
using cachecore::ReadFile;
using cachecore::RecordText;
using cachecore::UniqueFd;
using cachecore::WriteFileAtomically;
using host::Instance;
using host::kDaemon;
using host::kSupervisor;
using host::LastErrorLine;
using host::RunRoot;
using host::Settings;
using host::TemporaryDirectory;

struct Outcome {
  int code;
  std::string out;
  std::string error;
};

class CommandTest : public testing::Test {
 protected:
  Outcome Run(std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "holdfast");
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const int code = RunCommand(static_cast<int>(arguments.size()), arguments.data());
    return {code, testing::internal::GetCapturedStdout(), testing::internal::GetCapturedStderr()};
  }
  void ExpectUsageError(const std::vector<const char*>& arguments, const std::string& error) {
    const Outcome outcome = Run(arguments);
    EXPECT_EQ(outcome.code, kExitUsage);
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(outcome.error, "holdfast: " + error + "\n");
  }

  TemporaryDirectory box_;
  const std::string root_ = box_.path();
};

TEST_F(CommandTest, TheVersionIsPrinted) {
  const std::string expected = "holdfast " HOLDFAST_VERSION "\n";
  for (const char* spelling : {"version", "--version"}) {
    const Outcome outcome = Run({spelling});
    EXPECT_EQ(outcome.code, kExitOk);
    EXPECT_EQ(outcome.out, expected);
  }
}

// With a stdout that takes nothing.
Outcome RunOnFullDisk(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "holdfast");
  std::cout.flush();
  const UniqueFd before(dup(STDOUT_FILENO));
  const UniqueFd full(open("/dev/full", O_WRONLY | O_CLOEXEC));
  dup2(full.get(), STDOUT_FILENO);
  testing::internal::CaptureStderr();
  const int code = RunCommand(static_cast<int>(arguments.size()), arguments.data());
  __fpurge(stdout);
  std::cout.clear();
  dup2(before.get(), STDOUT_FILENO);
  return {code, "", testing::internal::GetCapturedStderr()};
}

TEST_F(CommandTest, OutputThatCannotBeWrittenIsAFailure) {
  const std::vector<std::vector<const char*>> commands = {
      {"version"},
      {"--version"},
      {"--help"},
      {"status", "--help"},
      {"status", "--root", root_.c_str()},
      {"status", "--json", "--root", root_.c_str()},
      {"mount", "--help"}};
  for (const std::vector<const char*>& command : commands) {
    const Outcome outcome = RunOnFullDisk(command);
    EXPECT_EQ(outcome.code, kExitFailed) << command.front();
    EXPECT_TRUE(outcome.error.starts_with("holdfast: the output could not be written"))
        << outcome.error;
  }
  EXPECT_EQ(RunOnFullDisk({"status", "--check", "--root", root_.c_str()}).code, kExitNotKnown);
}

TEST_F(CommandTest, AMonitorIsToldThatNothingIsKnown) {
  const std::string missing = root_ + "/none";
  const std::vector<std::vector<const char*>> commands = {
      {"--root", missing.c_str()},
      {"--root", "relative"},
      {"--root", root_.c_str(), "--instance", "typo"},
      {"--root", root_.c_str(), "--instance", "a/b"}};
  for (std::vector<const char*> command : commands) {
    command.insert(command.begin(), {"status", "--check"});
    const Outcome outcome = Run(command);
    EXPECT_EQ(outcome.code, kExitNotKnown);
    EXPECT_TRUE(outcome.out.starts_with("NOT KNOWN: ")) << outcome.out;
    EXPECT_EQ(outcome.error, "");
  }
  for (const std::vector<const char*>& wrong :
       std::vector<std::vector<const char*>>{{"status", "--check", "--jsno"},
                                             {"status", "--check", "--root"},
                                             {"status", "--json", "--check"},
                                             {"status", "x", "--check"}}) {
    EXPECT_EQ(Run(wrong).code, kExitNotKnown);
  }
  EXPECT_EQ(Run({"status", "--check", "--root", root_.c_str()}).code, kExitOk);
}

TEST_F(CommandTest, ARootThatIsNotThereIsAnError) {
  const std::string missing = root_ + "/none";
  for (const char* verb : {"status", "metrics"}) {
    const Outcome outcome = Run({verb, "--root", missing.c_str()});
    EXPECT_EQ(outcome.code, kExitFailed);
    EXPECT_EQ(outcome.error, "holdfast: the root directory " + missing +
                                 " can't be looked at (No such file or directory); give the --root "
                                 "of the instances\n");
    EXPECT_EQ(Run({verb, "--root", "relative"}).code, kExitUsage);
  }
}

TEST_F(CommandTest, WrongCommandLinesOfCacheAreUsageErrors) {
  ExpectUsageError({"cache"},
                   "holdfast cache needs a verb; it has: ls, limit, pin, unpin, rm, prune (see "
                   "holdfast cache --help)");
  for (const char* verb : {"pin", "unpin", "rm"}) {
    EXPECT_EQ(Run({"cache", verb}).code, kExitUsage) << verb;
  }
  for (const std::vector<const char*>& wrong :
       std::vector<std::vector<const char*>>{{"cache", "limit", "--max", "0%"},
                                             {"cache", "limit", "--min-free", "much"},
                                             {"cache", "prune", "--older-than", "soon"},
                                             {"cache", "rm", "--timeout", "0", "x"},
                                             {"cache", "ls", "--instance", "a/b"}}) {
    EXPECT_EQ(Run(wrong).code, kExitUsage) << wrong[1];
  }
}

TEST_F(CommandTest, AMistypedVerbIsNamedWithTheNearestOne) {
  ExpectUsageError({"mont", "U", "D"},
                   "holdfast has no verb 'mont'; did you mean 'mount'? (see holdfast --help)");
  ExpectUsageError({"image", "biuld", "a", "b"},
                   "holdfast image has no verb 'biuld'; did you mean 'build'? (see holdfast image "
                   "--help)");
  ExpectUsageError({"rootfs", "zzzzzzz"},
                   "holdfast rootfs has no verb 'zzzzzzz'; it has: create, mount, rm, list (see "
                   "holdfast rootfs --help)");
}

TEST_F(CommandTest, AWrongUseOfANestedVerbLeadsToItsOwnHelp) {
  const Outcome outcome = Run({"rootfs", "create", "--nonsense"});
  EXPECT_EQ(outcome.code, kExitUsage);
  EXPECT_NE(outcome.error.find("(see holdfast rootfs create --help)"), std::string::npos)
      << outcome.error;
}

TEST_F(CommandTest, SizesThatTheDaemonWouldRefuseAreWrongUsage) {
  ExpectUsageError({"mount", "--fetch-size", "5", "http://h/x", "/m"},
                   "--fetch-size 5 is not a power of two from 4K to 4M");
  ExpectUsageError({"mount", "--readahead-max", "1", "http://h/x", "/m"},
                   "--readahead-max 1 is neither 0 nor at least --fetch-size (65536 bytes)");
}

TEST_F(CommandTest, HelpIsNoError) {
  EXPECT_EQ(Run({"--help"}).code, kExitOk);
  for (const Verb& verb : Verbs()) {
    const Outcome outcome = Run({verb.name, "--help"});
    EXPECT_EQ(outcome.code, kExitOk) << verb.name;
    EXPECT_NE(outcome.out.find(verb.summary), std::string::npos) << verb.name;
  }
}

TEST_F(CommandTest, WrongUsageSaysWhatAndWhereToLook) {
  const std::string verbs =
      "mount, mount-erofs, umount, mounts, status, cache, config, metrics, trace, report, start, "
      "stop, "
      "dump, "
      "verify, image, "
      "rootfs, run, "
      "cachefiles-run, upgrade, "
      "supervise, version";
  ExpectUsageError({}, "holdfast needs a verb; it has: " + verbs + " (see holdfast --help)");
  ExpectUsageError({"rootfs"},
                   "holdfast rootfs needs a verb; it has: create, mount, rm, list (see holdfast "
                   "rootfs --help)");
  ExpectUsageError({"image", "--json"},
                   "holdfast image has no option --json, and needs a verb; it has: build, push, "
                   "inspect (see holdfast image --help)");
  ExpectUsageError({"mount", "http://h/x"}, "MOUNTPOINT is required (see holdfast mount --help)");
  ExpectUsageError({"umount"}, "MOUNTPOINT is required (see holdfast umount --help)");
  ExpectUsageError({"mount", "http://h/x", "/m", "--as=tar"},
                   "--as: tar not in {auto,erofs,squashfs,ext4,xfs,btrfs,iso9660,cramfs,file} (see "
                   "holdfast mount --help)");
  ExpectUsageError({"mount", "http://h/x", "/m", "--detach-policy=wait"},
                   "--detach-policy: wait not in {hold,fail} (see holdfast mount --help)");
  ExpectUsageError({"status", "--jsno"},
                   "The following argument was not expected: --jsno (see holdfast status --help)");
}

TEST_F(CommandTest, BadValuesAreNamed) {
  const auto mount = [this](const char* option, const std::string& error) {
    ExpectUsageError({"mount", "http://h/x", "/m", option}, error);
  };
  mount("--instance=a/b",
        "'a/b' can't name an instance: use 1 to 64 characters of A-Z, a-z, 0-9, '_', '.' and '-'");
  mount("--root=rel", "the root directory 'rel' must be an absolute path");
  mount("--timeout=0", "--timeout must be at least 1ms");
  mount("--cache-dir=rel", "--cache-dir rel must be an absolute path");
  mount("--origin=http://o/y",
        "the origins http://h/x and http://o/y must end in the same file name and query");
  for (const char* option : {"--timeout=soon", "--request-timeout=soon"}) {
    const Outcome outcome = Run({"mount", "http://h/x", "/m", option});
    EXPECT_EQ(outcome.code, kExitUsage);
    const std::string name(option, std::string(option).find('='));
    EXPECT_TRUE(outcome.error.starts_with("holdfast: " + name + ": ")) << outcome.error;
  }
}

TEST_F(CommandTest, AMountPointThatIsNotOursIsNamed) {
  const Outcome unknown = Run({"umount", "--root", root_.c_str(), root_.c_str()});
  EXPECT_EQ(unknown.code, kExitFailed);
  EXPECT_EQ(unknown.error,
            "holdfast: " + root_ + " is not mounted (holdfast status lists the mounts)\n");
  const Outcome other = Run({"umount", "--root", root_.c_str(), "/proc"});
  EXPECT_EQ(other.code, kExitFailed);
  EXPECT_EQ(other.error,
            "holdfast: /proc was not mounted by holdfast: proc from proc is mounted there; use "
            "umount\n");
}

TEST_F(CommandTest, StatusOfADeadInstanceIsNoError) {
  EXPECT_EQ(Run({"status", "--root", root_.c_str()}).out, "no instances\n");
  const Instance instance = *Instance::Make(root_, "dead");
  ASSERT_TRUE(MakeDirectories(instance.RunDir(), 0755).ok());
  ASSERT_TRUE(CreateFileExclusively(instance.PidFile(kSupervisor), "1\n", 0644).ok());
  ASSERT_TRUE(CreateFileExclusively(instance.ControlSocket(), "", 0644).ok());
  const Outcome text = Run({"status", "--root", root_.c_str()});
  EXPECT_EQ(text.code, kExitOk);
  EXPECT_EQ(text.out, "instance dead: not running\n");
  const Outcome json = Run({"status", "--json", "--root", root_.c_str()});
  EXPECT_EQ(json.code, kExitOk);
  EXPECT_FALSE(nlohmann::json::parse(json.out)["instances"][0]["running"].get<bool>());
}

TEST_F(CommandTest, StoppingWhatDoesNotRunIsNoError) {
  EXPECT_EQ(Run({"stop", "--root", root_.c_str()}).code, kExitOk);
}

TEST_F(CommandTest, StopClearsWhatADeadInstanceLeft) {
  const Instance instance = *Instance::Make(root_, "default");
  ASSERT_TRUE(MakeDirectories(instance.FuseDir(), 0755).ok());
  ASSERT_TRUE(MakeDirectories(instance.MountsDir(), 0755).ok());
  for (const std::string& stale : {instance.PidFile(kSupervisor), instance.PidFile(kDaemon),
                                   instance.ControlSocket(), instance.SettingsFile()}) {
    ASSERT_TRUE(CreateFileExclusively(stale, "1\n", 0644).ok());
  }
  const Outcome outcome = Run({"stop", "--root", root_.c_str()});
  EXPECT_EQ(outcome.code, kExitOk) << outcome.error;
  EXPECT_EQ(ListDirectory(RunRoot(root_)), std::vector<std::string>{".locks"});
}

TEST_F(CommandTest, DumpOfNothingSaysWhere) {
  const Outcome outcome = Run({"dump", "--cache-dir", root_.c_str()});
  EXPECT_EQ(outcome.code, kExitFailed);
  EXPECT_EQ(outcome.error, "holdfast: no cache in " + root_ + ": No such file or directory\n");
}

TEST(InstanceTest, FilesLieBeneathTheRoot) {
  const Instance instance = *Instance::Make("/r/", "n");
  EXPECT_EQ(instance.CacheDir(), "/r/var/lib/holdfast/n/cache");
  EXPECT_EQ(instance.ControlSocket(), "/r/run/holdfast/n/control.sock");
  EXPECT_EQ(instance.LogFile(kDaemon), "/r/var/log/holdfast/n/holdfastd.log");
  EXPECT_EQ(Instance::Make("/", "n")->RunDir(), "/run/holdfast/n");
}

TEST(InstanceTest, NamesThatCouldLeaveTheDirectoryAreRefused) {
  for (const std::string name : {"", ".", "..", "a/b", "a b", "\xc3\xa4"}) {
    EXPECT_FALSE(Instance::Make("/", name).ok()) << name;
  }
  EXPECT_FALSE(Instance::Make("/", std::string(65, 'a')).ok());
  EXPECT_TRUE(Instance::Make("/", std::string(64, 'a')).ok());
}

TEST(InstanceTest, ARootTooDeepForSocketsIsRefused) {
  EXPECT_EQ(Instance::Make("/" + std::string(90, 'r'), "n").status().error(), ENAMETOOLONG);
}

TEST(InstanceTest, ListFindsRunningAndStoppedOnes) {
  TemporaryDirectory box;
  ASSERT_TRUE(MakeDirectories(Instance::Make(box.path(), "b")->RunDir(), 0755).ok());
  ASSERT_TRUE(MakeDirectories(Instance::Make(box.path(), "a")->CacheDir(), 0755).ok());
  const std::vector<Instance> found = Instance::List(box.path());
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].name(), "a");
  EXPECT_EQ(found[1].name(), "b");
}

TEST(LastErrorLineTest, AnErrorIsPreferredToWhatFollowsIt) {
  TemporaryDirectory box;
  const std::string old = "E20261123 01:02:03.000000 1 a.cc:1] of an earlier start\n";
  const std::string log = old +
                          "I20261123 01:02:03.000000 1 a.cc:1] starting\n"
                          "E20261123 01:02:03.000000 1 b.cc:2] the disk is full\n"
                          "W1123 01:02:03.000000 1 c.cc:3] stopping\n\n";
  ASSERT_TRUE(CreateFileExclusively(box / "log", log, 0644).ok());
  EXPECT_EQ(LastErrorLine(box / "log", old.size()), "the disk is full");
  EXPECT_EQ(LastErrorLine(box / "log", log.size()), "");
  EXPECT_EQ(LastErrorLine(box / "none", 0), "");
}

TEST(LastErrorLineTest, WithoutAnErrorTheLastLineCounts) {
  TemporaryDirectory box;
  ASSERT_TRUE(CreateFileExclusively(box / "log", "usage\nholdfastd: bad flag\n \n", 0644).ok());
  EXPECT_EQ(LastErrorLine(box / "log", 0), "holdfastd: bad flag");
}

TEST(SettingsTest, ComeBackAsTheyWereWritten) {
  Settings settings;
  EXPECT_TRUE(settings.IsDefault());
  settings.watchdog = std::chrono::milliseconds(1500);
  EXPECT_FALSE(settings.IsDefault());
  settings.cache_dir = "/c";
  settings.daemon_flags = {"--a=1", "--b"};
  settings.fetcher_flags = {"--c"};
  EXPECT_FALSE(settings.IsDefault());
  EXPECT_EQ(Settings::FromJson(settings.ToJson()).ToJson(), settings.ToJson());
  const Settings earlier =
      Settings::FromJson({{"daemon_flags", {"--fetch_size=1_0", "--fetch_exact"}}});
  EXPECT_EQ(earlier.daemon_flags, (std::vector<std::string>{"--fetch-size=1_0", "--fetch-exact"}));
  EXPECT_TRUE(Settings::FromJson({{"daemon_flags", 7}, {"cache_dir", nullptr}}).IsDefault());
}

TEST(FilesTest, AnAtomicWriteReplacesAndKeepsTheMode) {
  TemporaryDirectory box;
  ASSERT_TRUE(WriteFileAtomically(box / "f", "old", 0600).ok());
  ASSERT_TRUE(WriteFileAtomically(box / "f", "new", 0600).ok());
  EXPECT_EQ(*ReadFile(box / "f"), "new");
  EXPECT_EQ(ListDirectory(box.path()), std::vector<std::string>{"f"});
  struct stat info;
  ASSERT_EQ(stat((box / "f").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST(FilesTest, ARecordKeepsEveryByteOfAPath) {
  std::string path = "/m/";
  for (int byte = 1; byte < 256; ++byte) path += static_cast<char>(byte);
  path += "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\xed\xa0\x80\xc0\xaf";
  const nlohmann::json record = {{"path", path}, {"list", {path, "plain"}}};
  const std::string text = RecordText(record);
  const auto read = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  ASSERT_TRUE(read.is_object()) << text;
  EXPECT_EQ(JsonString(read, "path"), path);
  EXPECT_EQ(JsonStrings(read, "list"), (std::vector<std::string>{path, "plain"}));
  // What is UTF-8 stays as it was, so that older records are the same.
  EXPECT_EQ(RecordText({{"path", "/m/\xc3\xa4"}}), "{\"path\":\"/m/\xc3\xa4\"}");
}

TEST(FilesTest, ADirectoryRemovedByItsHolderIsMadeAgainForTheNext) {
  TemporaryDirectory box;
  {
    const auto lock = LockDirectory(box / "d", 0755);
    ASSERT_TRUE(lock.ok());
    ASSERT_EQ(rmdir((box / "d").c_str()), 0);
    // Not blocked: the name now is another directory.
    ASSERT_TRUE(LockDirectory(box / "d", 0755).ok());
  }
  EXPECT_TRUE(LockDirectory(box / "d", 0755).ok());
}

}  // namespace
}  // namespace cli
