#include "host/mounts/mount_point.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "cachecore/system/files.h"
#include "cachecore/system/pid_stamp.h"
#include "tests/host/instance/temporary_directory.h"

namespace host {
namespace {

using cachecore::CreateFileExclusively;
using cachecore::FindMount;
using cachecore::FindMountAbove;
using cachecore::MountEntry;
using cachecore::ParseMountTable;
using cachecore::PathWithoutEntering;
using cachecore::ProcessStart;
using cachecore::WriteFileAtomically;

// A process that is gone for certain: it has been waited for.
pid_t DeadPid() {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  waitpid(child, nullptr, 0);
  return child;
}

class MountPointTest : public testing::Test {
 protected:
  MountPointTest() { mkdir(point_.c_str(), 0755); }

  MountRecord Record(bool mounted, pid_t claimed_by) {
    MountRecord record;
    record.mount_point = point_;
    record.url = "http://h/image";
    record.volume = "h-1";
    record.object = "image";
    record.kind = "erofs";
    record.device = instance_.FuseDir() + "/h-1/image";
    record.mounted = mounted;
    record.claimed_by = claimed_by;
    record.claimer_started = ProcessStart(claimed_by).value_or(0);
    record.since_unix_s = 1700000000;
    return record;
  }
  cachecore::Status Check(const std::string& path, const std::vector<MountEntry>& table = {}) {
    const auto checked = CheckMountPoint(box_.path(), path, table);
    return checked.ok() ? cachecore::Status() : checked.status();
  }

  TemporaryDirectory box_;
  const std::string point_ = box_ / "point";
  const Instance instance_ = *Instance::Make(box_.path(), "one");
};

TEST_F(MountPointTest, AnEmptyDirectoryIsGivenBackByItsRealPath) {
  ASSERT_EQ(symlink(point_.c_str(), (box_ / "link").c_str()), 0);
  const auto checked = CheckMountPoint(box_.path(), box_ / "link", {});
  ASSERT_TRUE(checked.ok()) << checked.status().message();
  EXPECT_EQ(checked->path, point_);
  EXPECT_TRUE(checked->IsInPlace());
}

TEST_F(MountPointTest, OneThatIsRenamedOrReplacedIsNoLongerInPlace) {
  const auto checked = CheckMountPoint(box_.path(), point_, {});
  ASSERT_TRUE(checked.ok()) << checked.status().message();
  ASSERT_EQ(rename(point_.c_str(), (box_ / "elsewhere").c_str()), 0);
  EXPECT_FALSE(checked->IsInPlace());
  ASSERT_EQ(mkdir(point_.c_str(), 0755), 0);
  EXPECT_FALSE(checked->IsInPlace());
  ASSERT_EQ(rmdir((box_ / "elsewhere").c_str()), 0);
  EXPECT_FALSE(checked->IsInPlace());
}

TEST_F(MountPointTest, AMissingOneIsRefusedWithTheCommandThatMakesIt) {
  const cachecore::Status status = Check(box_ / "none");
  EXPECT_EQ(status.error(), ENOENT);
  EXPECT_EQ(status.message(), "mount point " + box_ / "none" +
                                  " does not exist; create it: mkdir -p " + box_ / "none");
}

TEST_F(MountPointTest, AFileIsRefused) {
  ASSERT_TRUE(CreateFileExclusively(box_ / "file", "", 0644).ok());
  const cachecore::Status status = Check(box_ / "file");
  EXPECT_EQ(status.error(), ENOTDIR);
  EXPECT_EQ(status.message(),
            "mount point " + box_ / "file" + " is not a directory; name an empty directory");
}

TEST_F(MountPointTest, OneThatSomethingElseIsMountedOnIsRefused) {
  const cachecore::Status status = Check(point_, {{"0:1", point_, "/", "ext4", "/dev/sda1"}});
  EXPECT_EQ(status.error(), EBUSY);
  EXPECT_EQ(status.message(), "mount point " + point_ +
                                  " is busy: ext4 from /dev/sda1 is mounted there; use another "
                                  "directory");
}

TEST_F(MountPointTest, OneThatHoldfastMountedIsRefusedWithItsUrl) {
  ASSERT_TRUE(ClaimMountPoint(instance_, Record(true, DeadPid())).ok());
  const cachecore::Status status =
      Check(point_, {{"0:1", point_, "/", "erofs", instance_.FuseDir() + "/h-1/image"}});
  EXPECT_EQ(status.error(), EBUSY);
  EXPECT_EQ(status.message(), "mount point " + point_ +
                                  " already shows http://h/image; unmount it first: holdfast "
                                  "umount" +
                                  instance_.RootFlag() + " " + point_);
}

TEST_F(MountPointTest, OneThatIsJustBeingMountedIsRefused) {
  ASSERT_TRUE(ClaimMountPoint(instance_, Record(false, getpid())).ok());
  EXPECT_NE(Check(point_).message().find("is being mounted with http://h/image"),
            std::string::npos);
}

TEST_F(MountPointTest, RecordsWithoutAMountOrMounterDoNotBlockAMount) {
  ASSERT_TRUE(ClaimMountPoint(instance_, Record(false, DeadPid())).ok());
  EXPECT_TRUE(Check(point_).ok());
  ASSERT_TRUE(UpdateMountRecord(instance_, Record(true, getpid())).ok());
  EXPECT_TRUE(Check(point_).ok());
  MountRecord of_an_earlier_one = Record(false, getpid());
  --of_an_earlier_one.claimer_started;
  ASSERT_TRUE(UpdateMountRecord(instance_, of_an_earlier_one).ok());
  EXPECT_TRUE(Check(point_).ok()) << "its number is another process's now";
}

TEST_F(MountPointTest, ARecordComesBackAsItWasWritten) {
  const MountRecord written = Record(true, 12);
  ASSERT_TRUE(ClaimMountPoint(instance_, written).ok());
  const std::vector<MountRecord> read = ListMountRecords(instance_);
  ASSERT_EQ(read.size(), 1u);
  EXPECT_EQ(read[0].ToJson(), written.ToJson());
  const auto owned = FindOwned(box_.path(), point_, {});
  ASSERT_TRUE(owned.has_value());
  EXPECT_EQ(owned->instance.name(), "one");
  RemoveMountRecord(instance_, point_);
  EXPECT_TRUE(ListMountRecords(instance_).empty());
}

TEST_F(MountPointTest, AnInstanceOfTheDefaultRootIsListedByItsOwnRoot) {
  const Instance instance = *Instance::Make("/", "one");
  EXPECT_EQ(instance.root(), "");
  EXPECT_EQ(Instance::List("/").size(), Instance::List(instance.root()).size());
}

TEST_F(MountPointTest, AMountPointIsClaimedOnce) {
  ASSERT_TRUE(ClaimMountPoint(instance_, Record(false, getpid())).ok());
  EXPECT_EQ(ClaimMountPoint(instance_, Record(false, getpid())).error(), EEXIST);
}

TEST_F(MountPointTest, RecordFilesHaveNamesThatNeverMeet) {
  const std::string long_path = "/" + std::string(3000, 'x');
  std::vector<std::string> points = {"/a/b",  "/a-b", "/a%2Db",  "/a b",
                                     "/a\nb", "/a",   long_path, long_path + "y"};
  for (const std::string& point : points) {
    MountRecord record = Record(true, 1);
    record.mount_point = point;
    EXPECT_TRUE(ClaimMountPoint(instance_, record).ok()) << point;
  }
  EXPECT_EQ(ListMountRecords(instance_).size(), points.size());
}

TEST_F(MountPointTest, FilesThatAreNoRecordsArePassedOver) {
  ASSERT_TRUE(ClaimMountPoint(instance_, Record(true, 1)).ok());
  for (const char* text : {"", "not json", "[1]", "{\"mount_point\":7}"}) {
    ASSERT_TRUE(WriteFileAtomically(instance_.MountsDir() + "/bad.json", text, 0644).ok());
    EXPECT_EQ(ListMountRecords(instance_).size(), 1u) << text;
  }
}

TEST_F(MountPointTest, AMountIsFoundByIdAndDeviceWhereverItIsNow) {
  MountRecord record = Record(true, DeadPid());
  record.mount_id = 40;
  record.superblock = "0:46";
  record.fuse_device = "0:45";
  const std::string source = instance_.FuseDir() + "/h-1/image";
  std::vector<MountEntry> table = {
      {"0:45", instance_.FuseDir(), "/", "fuse.holdfast", "holdfast", "", 39},
      {"0:46", "/elsewhere", "/", "erofs", source, "", 40}};
  OwnMount mount = LookUp(instance_, record, table);
  EXPECT_EQ(mount.state, MountState::kMounted);
  EXPECT_EQ(mount.entry.mount_point, "/elsewhere");
  table[0].device = "0:50";
  EXPECT_EQ(LookUp(instance_, record, table).state, MountState::kDead);
  table[1].device = "0:51";  // The id is another mount's now.
  EXPECT_EQ(LookUp(instance_, record, table).state, MountState::kGone);
}

TEST_F(MountPointTest, AnotherMountWithTheIdAndDeviceOfOneThatIsGoneIsNotTakenForIt) {
  MountRecord record = Record(true, DeadPid());
  record.mount_id = 40;
  record.superblock = "0:46";
  const auto state_with = [&](const MountEntry& entry) {
    return LookUp(instance_, record, {entry}).state;
  };
  EXPECT_EQ(state_with({"0:46", "/m", "/", "erofs", record.device, "", 40}), MountState::kMounted);
  const std::string name = record.device.substr(record.device.rfind('/') + 1);
  EXPECT_EQ(state_with({"0:46", "/m", "/", "erofs", name, "", 40}), MountState::kMounted)
      << "as the kernel shows a file whose path is long";
  EXPECT_EQ(state_with({"0:46", "/m", "/", "tmpfs", "none", "", 40}), MountState::kGone);
  EXPECT_EQ(state_with({"0:46", "/m", "/", "erofs", "/other/fuse/h-1/image", "", 40}),
            MountState::kGone);
  EXPECT_EQ(state_with({"0:46", "/fuse", "/", "fuse.holdfast", "holdfast", "", 40}),
            MountState::kGone);
  record.kind = "file";
  EXPECT_EQ(state_with({"0:46", "/m", "/h-1", "fuse.holdfast", "holdfast", "", 40}),
            MountState::kMounted);
  EXPECT_EQ(state_with({"0:46", "/fuse", "/", "fuse.holdfast", "holdfast", "", 40}),
            MountState::kGone);
  EXPECT_EQ(state_with({"0:46", "/m", "/", "erofs", record.device, "", 40}), MountState::kGone);
}

TEST_F(MountPointTest, OnlyWhatIsOnItsOwnFuseMountIsAnInstances) {
  const std::string source = instance_.FuseDir() + "/h-1/image";
  EXPECT_TRUE(IsOf(instance_, {"0:9", "/m", "/", "erofs", source}, "0:45"));
  EXPECT_FALSE(IsOf(instance_, {"0:9", "/m", "/", "erofs", "/other/image"}, "0:45"));
  EXPECT_FALSE(IsOf(instance_, {"0:9", "/m", "/", "ext4", source}, "0:45"));
  EXPECT_TRUE(IsOf(instance_, {"0:45", "/m", "/v", "fuse.holdfast", "holdfast"}, "0:45"));
  EXPECT_FALSE(IsOf(instance_, {"0:44", "/m", "/v", "fuse.holdfast", "holdfast"}, "0:45"));
  EXPECT_FALSE(IsOf(instance_, {"0:45", "/m", "/", "fuse.sshfs", "host:"}, "0:45"));
  EXPECT_FALSE(IsOf(instance_, {"0:45", "/m", "/v", "fuse.holdfast", "holdfast"}, ""));
}

TEST(MountTableTest, ReadsMountinfoWithEscapesAndOptionalFields) {
  const std::vector<MountEntry> table = ParseMountTable(
      "36 35 98:0 / /mnt/a\\040b rw,noatime master:1 shared:2 - ext4 /dev/root rw\n"
      "37 35 0:40 /sub\\134dir /mnt/c rw - fuse.holdfast none rw\n"
      "garbage\n");
  ASSERT_EQ(table.size(), 2u);
  EXPECT_EQ(table[0].mount_point, "/mnt/a b");
  EXPECT_EQ(table[0].type, "ext4");
  EXPECT_EQ(table[0].source, "/dev/root");
  EXPECT_EQ(table[0].id, 36);
  EXPECT_EQ(table[0].peer_group, 2);
  EXPECT_EQ(table[0].master, 1);
  EXPECT_EQ(table[1].root, "/sub\\dir");
  EXPECT_EQ(table[1].device, "0:40");
}

TEST(MountTableTest, APathIsOnTheMountAtItsLongestPrefix) {
  const std::vector<MountEntry> table = {{"0:1", "/", "/", "ext4", "a"},
                                         {"0:2", "/m", "/", "erofs", "b"},
                                         {"0:3", "/m/n", "/", "tmpfs", "c"}};
  EXPECT_EQ(FindMountAbove(table, "/m/nn")->device, "0:2");
  EXPECT_EQ(FindMountAbove(table, "/m/n")->device, "0:3");
  EXPECT_EQ(FindMountAbove(table, "/mm")->device, "0:1");
}

TEST(MountTableTest, OfSeveralMountsOnOnePointTheLastIsFound) {
  const std::vector<MountEntry> table = {{"0:1", "/m", "/", "ext4", "a"},
                                         {"0:2", "/m", "/", "erofs", "b"}};
  EXPECT_EQ(FindMount(table, "/m")->type, "erofs");
  EXPECT_EQ(FindMount(table, "/n"), nullptr);
}

TEST(MountTableTest, APathIsResolvedUpToButNotIntoItsLastComponent) {
  TemporaryDirectory box;
  mkdir((box / "real").c_str(), 0755);
  ASSERT_EQ(symlink("real", (box / "link").c_str()), 0);
  EXPECT_EQ(*PathWithoutEntering(box / "link/"), box / "link");
  EXPECT_EQ(*PathWithoutEntering(box / "link/not-there"), box / "real/not-there");
  EXPECT_EQ(*PathWithoutEntering(box / "link/."), box / "real");
  EXPECT_EQ(*PathWithoutEntering("/"), "/");
}

}  // namespace
}  // namespace host
