#include "host/service/output_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "cachecore/base/unique_fd.h"
#include "cachecore/system/files.h"
#include "tests/host/instance/temporary_directory.h"

namespace host {
namespace {

using cachecore::CreateFileExclusively;
using cachecore::ListDirectory;
using cachecore::ReadFile;
using cachecore::Status;
using cachecore::UniqueFd;

constexpr unsigned kMemoryMajor = 1, kNullMinor = 3;

struct stat LookAt(const std::string& path) {
  struct stat info = {};
  EXPECT_EQ(lstat(path.c_str(), &info), 0) << path;
  return info;
}

class OutputFileTest : public testing::Test {
 protected:
  void ExpectText(const std::string& path, const std::string& text) {
    const auto read = ReadFile(path);
    ASSERT_TRUE(read.ok()) << read.status().message();
    EXPECT_EQ(*read, text);
  }

  TemporaryDirectory box_;
  const std::string path_ = box_ / "x.prom";
};

TEST_F(OutputFileTest, ANewFileCanBeReadByAllWhateverTheUmask) {
  const mode_t before = umask(077);
  const Status written = WriteOutput(path_, "a\n", 0644);
  umask(before);
  ASSERT_TRUE(written.ok()) << written.message();
  ExpectText(path_, "a\n");
  EXPECT_EQ(LookAt(path_).st_mode, S_IFREG | 0644U);
  EXPECT_EQ(ListDirectory(box_.path()).size(), 1U);
}

TEST_F(OutputFileTest, AnExistingFileKeepsItsModeAndOwner) {
  ASSERT_TRUE(CreateFileExclusively(path_, "old", 0600).ok());
  ASSERT_EQ(chmod(path_.c_str(), 0640), 0);
  const uid_t owner = geteuid() == 0 ? 65534 : geteuid();
  if (owner != geteuid()) {
    ASSERT_EQ(chown(path_.c_str(), owner, owner), 0);
  }
  const ino_t before = LookAt(path_).st_ino;
  ASSERT_TRUE(WriteOutput(path_, "new", 0644).ok());
  ExpectText(path_, "new");
  EXPECT_EQ(LookAt(path_).st_mode, S_IFREG | 0640U);
  EXPECT_EQ(LookAt(path_).st_uid, owner);
  EXPECT_NE(LookAt(path_).st_ino, before);  // Replaced, not written into.
}

TEST_F(OutputFileTest, ALinkStaysAndItsTargetIsReplaced) {
  const std::string directory = box_ / "elsewhere";
  ASSERT_EQ(mkdir(directory.c_str(), 0755), 0);
  ASSERT_EQ(symlink("elsewhere/second", path_.c_str()), 0);
  ASSERT_EQ(symlink((directory + "/target").c_str(), (directory + "/second").c_str()), 0);
  for (const char* text : {"the target was not there", "and now it is"}) {
    const Status written = WriteOutput(path_, text, 0644);
    ASSERT_TRUE(written.ok()) << written.message();
    EXPECT_TRUE(S_ISLNK(LookAt(path_).st_mode));
    EXPECT_TRUE(S_ISLNK(LookAt(directory + "/second").st_mode));
    ExpectText(directory + "/target", text);
  }
}

TEST_F(OutputFileTest, AFifoIsWrittenInto) {
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  // Of this process, so that neither side waits for ever.
  const UniqueFd reader(open(path_.c_str(), O_RDWR | O_CLOEXEC));
  const Status written = WriteOutput(path_, "text", 0644);
  ASSERT_TRUE(written.ok()) << written.message();
  char got[8];
  EXPECT_EQ(std::string(got, static_cast<size_t>(read(reader.get(), got, sizeof got))), "text");
  EXPECT_TRUE(S_ISFIFO(LookAt(path_).st_mode));
}

TEST_F(OutputFileTest, ADeviceStaysOne) {
  if (mknod(path_.c_str(), S_IFCHR | 0600, makedev(kMemoryMajor, kNullMinor)) != 0) {
    GTEST_SKIP() << "SKIP: a device node can't be made here";
  }
  const Status written = WriteOutput(path_, "text", 0644);
  EXPECT_TRUE(written.ok() || written.error() == EACCES) << written.message();  // EACCES: nodev.
  EXPECT_TRUE(S_ISCHR(LookAt(path_).st_mode));
}

TEST_F(OutputFileTest, ADirectoryIsRefusedWithTheCure) {
  const std::string directory = box_ / "sub";
  for (const char* slash : {"/", "//"}) {
    EXPECT_EQ(WriteOutput(directory + slash, "x", 0644).error(), EISDIR);
  }
  ASSERT_EQ(mkdir(directory.c_str(), 0755), 0);
  for (const char* slash : {"", "/"}) {
    const Status refused = WriteOutput(directory + slash, "x", 0644);
    EXPECT_EQ(refused.message(),
              directory + slash + " is a directory; name a file in it: " + directory + "/FILE");
  }
}

TEST_F(OutputFileTest, WhatCannotBeWrittenLeavesNothing) {
  EXPECT_EQ(WriteOutput(box_ / "none/x.prom", "x", 0644).error(), ENOENT);
  ASSERT_EQ(symlink("x.prom", path_.c_str()), 0);
  EXPECT_EQ(WriteOutput(path_, "x", 0644).error(), ELOOP);
  EXPECT_EQ(ListDirectory(box_.path()).size(), 1U);
}

}  // namespace
}  // namespace host
