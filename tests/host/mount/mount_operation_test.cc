// `holdfast mount` and `holdfast umount` on real mounts, with a daemon that only pretends.

#include "host/mount/mount_operation.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include "cachecore/base/deadline.h"
#include "cachecore/base/mutex.h"
#include "cachecore/system/files.h"
#include "cli/command.h"
#include "host/mount/image_mount.h"
#include "host/service/instance_control.h"
#include "tests/host/instance/fake_control_server.h"
#include "tests/host/instance/temporary_directory.h"

namespace host {
namespace {

using cachecore::CreateFileExclusively;
using cachecore::Deadline;
using cachecore::FindMount;
using cachecore::ListDirectory;
using cachecore::MakeDirectories;
using cachecore::Mutex;
using cachecore::MutexLock;
using cachecore::ReadFile;
using cachecore::ReadMountTable;
using cachecore::Status;
using cachecore::WaitUntil;
using cachecore::WriteFileAtomically;
using cli::kExitFailed;
using cli::kExitOk;
using cli::RunCommand;
using nlohmann::json;

class MountOperationTest : public testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "mounting needs root";
    if (std::system("command -v mkfs.erofs >/dev/null") != 0) GTEST_SKIP() << "no mkfs.erofs";
    ASSERT_TRUE(MakeDirectories(fuse_ + "/tree", 0755).ok());
    ASSERT_TRUE(MakeDirectories(point_, 0755).ok());
    ASSERT_TRUE(CreateFileExclusively(fuse_ + "/tree/file", "inside", 0644).ok());
    const std::string make = "mkfs.erofs " + image_ + " " + fuse_ + "/tree >/dev/null 2>&1";
    ASSERT_EQ(std::system(make.c_str()), 0);
    ASSERT_TRUE(MakeDirectories(instance_.RunDir(), 0755).ok());
    server_ = std::make_unique<FakeControlServer>(
        instance_.ControlSocket(), [this](const std::string& line) { return Answer(line); });
    SetAcquireAnswer(Acquired(image_));
  }
  void TearDown() override {
    umount2(point_.c_str(), MNT_DETACH);
    umount2((box_ / "other").c_str(), MNT_DETACH);
  }

  json Acquired(const std::string& path) {
    struct stat info = {};
    stat(path.c_str(), &info);
    return {{"ok", true},
            {"path", path},
            {"directory", fuse_},
            {"size", info.st_size},
            {"stale", false}};
  }
  void SetAcquireAnswer(const json& answer) {
    MutexLock lock(&mu_);
    acquire_answer_ = answer;
  }
  // From now on so many, and then never more.
  void AnswerPings(int count) {
    MutexLock lock(&mu_);
    pings_ = count;
  }
  json LastAcquire() {
    MutexLock lock(&mu_);
    return acquire_;
  }
  // Requests for `op`, or the first of them only, are answered so; see FakeControlServer.
  void SetAnswer(const std::string& op, const std::optional<std::string>& answer,
                 bool once = false) {
    MutexLock lock(&mu_);
    answers_[op] = {answer, once};
  }
  static std::string Refusal(int error, const std::string& sentence) {
    return json({{"ok", false}, {"errno", error}, {"error", sentence}}).dump() + "\n";
  }
  bool WasAsked(const std::string& op) {
    MutexLock lock(&mu_);
    return asked_.contains(op);
  }
  std::optional<std::string> Answer(const std::string& line) {
    const json request = json::parse(line);
    MutexLock lock(&mu_);
    asked_.insert(request["op"]);
    if (const auto it = answers_.find(request["op"]); it != answers_.end()) {
      const ScriptedAnswer scripted = it->second;
      if (scripted.once) answers_.erase(it);
      return scripted.line;
    }
    if (request["op"] == "ping" && pings_ == 0) return "dead\n";
    if (request["op"] == "ping" && pings_ > 0) --pings_;
    if (request["op"] != "acquire") return "{\"ok\":true}\n";
    acquire_ = request;
    return acquire_answer_.dump() + "\n";
  }

  MountRequest Request(const std::string& as = "auto") {
    return {instance_,
            *MakeImageSource({"http://h/d/image?sig=1"}, {}),
            point_,
            ContentChoice{.as = as},
            ImageMountOptions(),
            std::chrono::milliseconds(20'000),
            Settings()};
  }
  Status Mount(const std::string& as = "auto") { return MountOperation(Request(as)).Run(); }
  int Umount(const std::string& point) {
    const char* const arguments[] = {"holdfast", "umount", "--root", box_.path().c_str(),
                                     point.c_str()};
    return RunCommand(5, arguments);
  }
  bool IsMounted() { return FindMount(*ReadMountTable(), point_) != nullptr; }
  void ExpectNothingLeft() {
    EXPECT_FALSE(IsMounted());
    EXPECT_TRUE(ListMountRecords(instance_).empty());
  }

  TemporaryDirectory box_;
  const std::string fuse_ = box_ / "fuse";
  const std::string image_ = fuse_ + "/image";
  const std::string point_ = box_ / "point";
  const Instance instance_ = *Instance::Make(box_.path(), "t");
  Mutex mu_;
  json acquire_answer_ GUARDED_BY(mu_);
  json acquire_ GUARDED_BY(mu_);
  struct ScriptedAnswer {
    std::optional<std::string> line;
    bool once = false;
  };
  std::map<std::string, ScriptedAnswer> answers_ GUARDED_BY(mu_);
  std::set<std::string> asked_ GUARDED_BY(mu_);
  int pings_ GUARDED_BY(mu_) = -1;             // Still to be answered; below 0: all.
  std::unique_ptr<FakeControlServer> server_;  // Last: its thread uses all of the above.
};

TEST_F(MountOperationTest, ADaemonThatDiesOnceItHasAnsweredIsNotTakenForAStoppedOne) {
  ASSERT_TRUE(MakeDirectories(instance_.MountsDir(), 0700).ok());
  setenv("HOLDFAST_BIN_DIR", (box_ / "none").c_str(), 1);  // Nothing can be started.
  AnswerPings(1);
  const auto started =
      EnsureRunning(instance_, Settings(), Deadline(std::chrono::milliseconds(20'000)));
  unsetenv("HOLDFAST_BIN_DIR");
  ASSERT_TRUE(started.ok()) << started.status().message();
  EXPECT_FALSE(*started);
}

TEST_F(MountOperationTest, AnErofsImageIsMountedRecordedAndUnmounted) {
  const Status status = Mount();
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(*ReadFile(point_ + "/file"), "inside");
  EXPECT_EQ(FindMount(*ReadMountTable(), point_)->type, "erofs");

  const std::vector<MountRecord> records = ListMountRecords(instance_);
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].url, "http://h/d/image");
  EXPECT_EQ(records[0].kind, "erofs");
  EXPECT_TRUE(records[0].mounted);
  const json asked = LastAcquire();
  EXPECT_EQ(asked["object"], "image");
  EXPECT_EQ(asked["volume"], records[0].volume);
  EXPECT_GT(asked["timeout_ms"], 0);  // What is left of the mount's time.
  EXPECT_LE(asked["timeout_ms"], 20'000);
  EXPECT_EQ(*ReadFile(instance_.SourceFile(records[0].volume)),
            "{\"origins\":[\"http://h/d/\"],\"query\":\"?sig=1\",\"version\":1}\n");

  EXPECT_EQ(Umount(point_), kExitOk);
  ExpectNothingLeft();
}

TEST_F(MountOperationTest, AnythingElseIsShownAsAFileOfAReadOnlyDirectory) {
  ASSERT_TRUE(Mount("file").ok());
  EXPECT_EQ(*ReadFile(point_ + "/image"), *ReadFile(image_));
  EXPECT_EQ(open((point_ + "/image").c_str(), O_RDWR | O_CLOEXEC), -1);
  EXPECT_EQ(errno, EROFS);
}

TEST_F(MountOperationTest, ALoopDeviceServesWhereAFileCannotAndGoesWithTheMount) {
  const cachecore::UniqueFd point(open(point_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  std::string device;
  {
    const auto mount =
        MountByLoop("erofs", image_, {}, point.get(), *ImageMountOptions::Parse("", false, false),
                    Deadline(std::chrono::milliseconds(20'000)));
    ASSERT_TRUE(mount.ok()) << mount.status().message();
    device = mount->device;
  }
  ASSERT_TRUE(device.starts_with("/dev/loop")) << device;
  EXPECT_EQ(*ReadFile(point_ + "/file"), "inside");
  const std::string backing = "/sys/block" + device.substr(4) + "/loop/backing_file";
  EXPECT_EQ(*ReadFile(backing), image_ + "\n");
  ASSERT_EQ(umount(point_.c_str()), 0);
  const auto cleared = [&] {
    const auto now = ReadFile(backing);
    return !now.ok() || *now != image_ + "\n";
  };
  EXPECT_TRUE(WaitUntil(cleared, Deadline(std::chrono::milliseconds(20'000))).ok());
}

TEST_F(MountOperationTest, ARefusalOfTheOriginIsToldAndUndone) {
  SetAcquireAnswer({{"ok", false}, {"errno", 2}, {"error", "http://h/d/image: 404 Not Found"}});
  const Status status = Mount();
  EXPECT_EQ(status.error(), ENOENT);
  EXPECT_EQ(status.message(), "cannot mount http://h/d/image: 404 Not Found");
  ExpectNothingLeft();
  EXPECT_TRUE(ListDirectory(instance_.SourcesDir()).empty());
}

TEST_F(MountOperationTest, EachRefusalOfTheDaemonIsToldAndUndone) {
  for (const auto& [error, sentence] :
       {std::pair(EOPNOTSUPP, "unknown op; there are ping, stop"),
        std::pair(EPERM, "not your daemon"),
        std::pair(EINVAL, "a request is one line of JSON, an object with \"op\"")}) {
    SetAnswer("acquire", Refusal(error, sentence));
    const Status status = Mount();
    EXPECT_EQ(status.error(), error);
    EXPECT_EQ(status.message(), std::string("cannot mount http://h/d/image: ") + sentence);
    ExpectNothingLeft();
    EXPECT_TRUE(ListDirectory(instance_.SourcesDir()).empty());
  }
}

TEST_F(MountOperationTest, ADaemonThatDiesInAnAcquireIsAskedAgain) {
  SetAnswer("acquire", std::nullopt, /*once=*/true);
  const Status status = Mount();
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_TRUE(IsMounted());
}

TEST_F(MountOperationTest, AnAcquireThatMayGoBetterIsAskedAgain) {
  SetAnswer("acquire", Refusal(ECONNREFUSED, "http://h/d/image: refused"), /*once=*/true);
  const Status status = Mount();
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_TRUE(IsMounted());
}

TEST_F(MountOperationTest, AnAnswerThatIsNoneIsGivenUpAtTheTimeoutAndUndone) {
  SetAnswer("acquire", "hello\n");
  MountRequest request = Request();
  request.timeout = std::chrono::milliseconds(500);
  const Status status = MountOperation(request).Run();
  EXPECT_EQ(status.error(), EPROTO);
  EXPECT_TRUE(status.message().starts_with(
      "cannot mount http://h/d/image: " + instance_.ControlSocket() + ": "))
      << status.message();
  ExpectNothingLeft();
}

TEST_F(MountOperationTest, AnAcquireWithoutAPathOrWithAnotherDigestOrSizeIsUndone) {
  SetAcquireAnswer({{"ok", true}});
  EXPECT_EQ(Mount().error(), EPROTO);
  ExpectNothingLeft();
  json answer = Acquired(image_);
  answer["digest"] = "sha256:" + std::string(64, '0');
  SetAcquireAnswer(answer);
  EXPECT_EQ(Mount().error(), EBADMSG);
  ExpectNothingLeft();
  SetAcquireAnswer(Acquired(image_));
  MountRequest request = Request();
  request.image_bytes = 1;
  EXPECT_EQ(MountOperation(request).Run().error(), EBADMSG);
  ExpectNothingLeft();
}

TEST_F(MountOperationTest, AMountWhoseObjectIsNotKeptIsUndoneAndTheObjectReleased) {
  SetAnswer("keep", Refusal(ENOENT, "v/image was not acquired, or its time is up"));
  const Status status = Mount();
  EXPECT_EQ(status.error(), ENOENT);
  EXPECT_EQ(status.message(),
            "cannot mount http://h/d/image: v/image was not acquired, or its time is up");
  ExpectNothingLeft();
  EXPECT_TRUE(WasAsked("release"));
}

TEST_F(MountOperationTest, ADaemonThatDiesInAKeepIsAskedAgainUntilTheTimeout) {
  SetAnswer("keep", std::nullopt, /*once=*/true);
  Status status = Mount();
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_TRUE(IsMounted());
  EXPECT_EQ(Umount(point_), kExitOk);

  SetAnswer("keep", std::nullopt);
  MountRequest request = Request();
  request.timeout = std::chrono::milliseconds(500);
  status = MountOperation(request).Run();
  EXPECT_EQ(status.error(), ECONNRESET);
  ExpectNothingLeft();
  EXPECT_TRUE(WasAsked("release"));
}

TEST_F(MountOperationTest, AnUmountNeedsNoAnswerToItsRelease) {
  for (const std::optional<std::string>& answer :
       {std::optional<std::string>(), std::optional<std::string>("hello\n")}) {
    ASSERT_TRUE(Mount().ok());
    SetAnswer("release", answer, /*once=*/true);
    EXPECT_EQ(Umount(point_), kExitOk);
    EXPECT_TRUE(WasAsked("release"));
    ExpectNothingLeft();
  }
}

TEST_F(MountOperationTest, AFailureLeavesTheSourceOfAnEarlierMountAsItWas) {
  const std::string source = instance_.SourceFile(Request().source.Volume());
  ASSERT_TRUE(MakeDirectories(instance_.SourcesDir(), 0700).ok());
  ASSERT_TRUE(WriteFileAtomically(source, "earlier", 0600).ok());
  SetAcquireAnswer({{"ok", false}, {"errno", 5}, {"error", "no"}});
  EXPECT_FALSE(Mount().ok());
  EXPECT_EQ(*ReadFile(source), "earlier");
}

TEST_F(MountOperationTest, ATruncatedImageAndAWebPageAreRefusedAndUndone) {
  json answer = Acquired(image_);
  const int64_t bytes = answer["size"];
  answer["size"] = bytes - 1;
  SetAcquireAnswer(answer);
  EXPECT_EQ(Mount().message(), "http://h/d/image is a truncated image: its superblock says " +
                                   std::to_string(bytes) + " bytes, the origin has " +
                                   std::to_string(bytes - 1));
  ExpectNothingLeft();
  ASSERT_TRUE(CreateFileExclusively(fuse_ + "/page", "<html>", 0644).ok());
  SetAcquireAnswer(Acquired(fuse_ + "/page"));
  EXPECT_EQ(Mount().error(), EINVAL);
  ExpectNothingLeft();
}

TEST_F(MountOperationTest, AnImageTheKernelRefusesIsUndoneWithTheReason) {
  std::string bytes = *ReadFile(image_);
  bytes[1024 + 80] = '\x7f';  // Incompatible features that no kernel knows.
  bytes[1024 + 81] = '\x7f';
  ASSERT_TRUE(WriteFileAtomically(image_, bytes, 0644).ok());
  const Status status = Mount();
  ASSERT_FALSE(status.ok());
  EXPECT_TRUE(status.message().starts_with("cannot mount http://h/d/image on " + point_ +
                                           ": the kernel refused to mount the EROFS image"))
      << status.message();
  ExpectNothingLeft();
}

TEST_F(MountOperationTest, BytesThatNeverComeAreGivenUpAtTheTimeout) {
  ASSERT_EQ(mkfifo((fuse_ + "/fifo").c_str(), 0600), 0);  // Opening it waits for a writer.
  json answer = Acquired(fuse_ + "/fifo");
  answer["size"] = 4096;
  SetAcquireAnswer(answer);
  MountRequest request = Request();
  request.timeout = std::chrono::milliseconds(2000);
  const Status status = MountOperation(request).Run();
  EXPECT_EQ(status.error(), ETIMEDOUT);
  EXPECT_EQ(status.message(),
            "cannot mount http://h/d/image: its first bytes did not come within 2000 ms "
            "(--timeout waits longer)");
  ExpectNothingLeft();
}

TEST_F(MountOperationTest, ASecondMountOnOnePointIsRefusedAndTheFirstGoesOn) {
  ASSERT_TRUE(Mount().ok());
  EXPECT_EQ(Mount().error(), EBUSY);
  EXPECT_EQ(*ReadFile(point_ + "/file"), "inside");
  EXPECT_EQ(ListMountRecords(instance_).size(), 1u);
}

TEST_F(MountOperationTest, SettingsAreRefusedWhileTheInstanceRuns) {
  MountRequest request = Request();
  request.settings.daemon_flags = {"--fetch-size=4K"};
  const Status status = MountOperation(request).Run();
  EXPECT_EQ(status.error(), EBUSY);
  EXPECT_EQ(status.message(),
            "instance t was not started by holdfast mount; give it its settings where it is "
            "started (for systemd: " +
                request.instance.root() + "/etc/holdfast/t.conf)");
  ExpectNothingLeft();
}

TEST_F(MountOperationTest, AChangedImageReplacesTheOldOneUnlessThatIsMounted) {
  ASSERT_TRUE(Mount().ok());
  EXPECT_EQ(LastAcquire()["replace_stale"], true);
  ASSERT_TRUE(MakeDirectories(box_ / "other", 0755).ok());
  json answer = Acquired(image_);
  answer["stale"] = true;
  SetAcquireAnswer(answer);
  MountRequest request = Request();
  request.mount_point = box_ / "other";
  const Status status = MountOperation(request).Run();
  EXPECT_EQ(LastAcquire()["replace_stale"], false);
  EXPECT_EQ(status.error(), ESTALE);
  EXPECT_EQ(status.message(),
            "cannot mount http://h/d/image: it has changed at its origin since "
            "it was mounted on " +
                point_ + "; unmount it there first");
}

TEST_F(MountOperationTest, UmountWorksByASymbolicLinkAndAfterTheMountIsGone) {
  ASSERT_TRUE(Mount().ok());
  ASSERT_EQ(symlink(point_.c_str(), (box_ / "link").c_str()), 0);
  EXPECT_EQ(Umount(box_ / "link"), kExitOk);
  ExpectNothingLeft();
  ASSERT_TRUE(Mount().ok());
  ASSERT_EQ(umount(point_.c_str()), 0);
  testing::internal::CaptureStderr();
  EXPECT_EQ(Umount(point_), kExitOk);
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "holdfast: " + point_ + " was no longer mounted\n");
  ExpectNothingLeft();
}

TEST_F(MountOperationTest, ABusyMountIsRefusedAndLazilyDetached) {
  ASSERT_TRUE(Mount().ok());
  const cachecore::UniqueFd user(open((point_ + "/file").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(user.valid());
  testing::internal::CaptureStderr();
  EXPECT_EQ(Umount(point_), kExitFailed);
  const std::string error = testing::internal::GetCapturedStderr();
  EXPECT_TRUE(error.starts_with("holdfast: " + point_ + " is busy, held by ")) << error;
  EXPECT_NE(error.find("(" + std::to_string(getpid()) + ")"), std::string::npos) << error;
  EXPECT_TRUE(IsMounted());
  const char* const arguments[] = {"holdfast",          "umount",      "--lazy", "--root",
                                   box_.path().c_str(), point_.c_str()};
  EXPECT_EQ(RunCommand(6, arguments), kExitOk);
  ExpectNothingLeft();
  char byte;
  EXPECT_EQ(read(user.get(), &byte, 1), 1);
}

}  // namespace
}  // namespace host
