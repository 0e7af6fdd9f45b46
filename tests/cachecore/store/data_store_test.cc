#include "cachecore/store/data_store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <string>

namespace cachecore {
namespace {

constexpr ObjectNumber kNumber{0x1234};

class DataStoreTest : public testing::Test {
 protected:
  DataStoreTest() {
    std::string pattern = testing::TempDir() + "holdfast_data_XXXXXX";
    root_ = mkdtemp(pattern.data());
    directory_ = root_ + "/data";
  }
  ~DataStoreTest() override { std::filesystem::remove_all(root_); }

  DataStore OpenStore() {
    Result<DataStore> store = DataStore::Open(directory_);
    EXPECT_TRUE(store.ok()) << store.status().message();
    return std::move(store).value();
  }

  std::string root_;
  std::string directory_;
};

TEST_F(DataStoreTest, MakesAPrivateDirectoryAndLeavesNothingInIt) {
  OpenStore();
  struct stat info;
  ASSERT_EQ(stat(directory_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0700u);
  EXPECT_TRUE(std::filesystem::is_empty(directory_));
  OpenStore();
}

TEST_F(DataStoreTest, AnObjectsFileIsNamedByItsNumber) {
  const DataStore store = OpenStore();
  EXPECT_EQ(store.PathOf(kNumber), directory_ + "/34/4660.data");
  EXPECT_EQ(store.PathOf(ObjectNumber{5}), directory_ + "/05/5.data");
}

TEST_F(DataStoreTest, ANewFileIsASparseFileOfItsSizeThatOnlyItsOwnerReads) {
  const DataStore store = OpenStore();
  const Result<UniqueFd> fd = store.Create(kNumber, uint64_t{1} << 40);
  ASSERT_TRUE(fd.ok()) << fd.status().message();
  struct stat info;
  ASSERT_EQ(fstat(fd->get(), &info), 0);
  EXPECT_EQ(info.st_size, off_t{1} << 40);
  EXPECT_LT(info.st_blocks, 64);
  EXPECT_EQ(info.st_mode & 07777, 0600u);
  EXPECT_NE(fcntl(fd->get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST_F(DataStoreTest, CreateTruncatesWhatAnEarlierLifeLeft) {
  const DataStore store = OpenStore();
  const UniqueFd old = store.Create(kNumber, 4).value();
  ASSERT_EQ(pwrite(old.get(), "left", 4, 0), 4);
  const UniqueFd fresh = store.Create(kNumber, 4).value();
  char bytes[4];
  ASSERT_EQ(pread(fresh.get(), bytes, 4, 0), 4);
  EXPECT_EQ(std::string(bytes, 4), std::string(4, '\0'));
}

TEST_F(DataStoreTest, AnExistingFileKeepsItsBytesAcrossStores) {
  const UniqueFd fd = OpenStore().Create(kNumber, 10).value();
  ASSERT_EQ(pwrite(fd.get(), "kept", 4, 3), 4);
  const Result<UniqueFd> again = OpenStore().OpenExisting(kNumber, 10);
  ASSERT_TRUE(again.ok()) << again.status().message();
  char bytes[4];
  ASSERT_EQ(pread(again->get(), bytes, 4, 3), 4);
  EXPECT_EQ(std::string(bytes, 4), "kept");
}

TEST_F(DataStoreTest, AFileOfAnotherSizeIsDamaged) {
  const DataStore store = OpenStore();
  ASSERT_TRUE(store.Create(kNumber, 10).ok());
  const Result<UniqueFd> fd = store.OpenExisting(kNumber, 11);
  EXPECT_EQ(fd.status().error(), EBADMSG);
  EXPECT_EQ(fd.status().message(), store.PathOf(kNumber) + " is not a file of 11 bytes but of 10");
}

TEST_F(DataStoreTest, AMissingFileIsENOENTWithItsPath) {
  const DataStore store = OpenStore();
  EXPECT_EQ(store.OpenExisting(kNumber, 1).status().error(), ENOENT);
  EXPECT_EQ(store.OpenForFetcher(kNumber).status().message(),
            "open " + store.PathOf(kNumber) + ": No such file or directory");
}

TEST_F(DataStoreTest, AFetcherCanWriteButNotRead) {
  const DataStore store = OpenStore();
  const UniqueFd ours = store.Create(kNumber, 4).value();
  const UniqueFd theirs = store.OpenForFetcher(kNumber).value();
  ASSERT_EQ(pwrite(theirs.get(), "data", 4, 0), 4);
  char bytes[4];
  EXPECT_EQ(pread(theirs.get(), bytes, 4, 0), -1);
  EXPECT_EQ(errno, EBADF);
  EXPECT_EQ(pread(ours.get(), bytes, 4, 0), 4);
}

TEST_F(DataStoreTest, RemoveTakesTheFileAndIsContentWhenThereIsNone) {
  const DataStore store = OpenStore();
  ASSERT_TRUE(store.Create(kNumber, 4).ok());
  EXPECT_TRUE(store.Remove(kNumber).ok());
  EXPECT_FALSE(std::filesystem::exists(store.PathOf(kNumber)));
  EXPECT_TRUE(store.Remove(kNumber).ok());
}

TEST_F(DataStoreTest, ASymbolicLinkInAFilesPlaceIsNotFollowed) {
  const DataStore store = OpenStore();
  ASSERT_TRUE(store.Create(kNumber, 4).ok());
  std::filesystem::remove(store.PathOf(kNumber));
  std::ofstream(root_ + "/elsewhere") << "mine";
  std::filesystem::create_symlink(root_ + "/elsewhere", store.PathOf(kNumber));
  EXPECT_EQ(store.Create(kNumber, 4).status().error(), ELOOP);
  EXPECT_EQ(store.OpenForFetcher(kNumber).status().error(), ELOOP);
}

TEST_F(DataStoreTest, ASizeThatNoFileCanHaveLeavesNoFile) {
  const DataStore store = OpenStore();
  EXPECT_EQ(store.Create(kNumber, UINT64_MAX).status().error(), EFBIG);
  EXPECT_FALSE(std::filesystem::exists(store.PathOf(kNumber)));
}

TEST_F(DataStoreTest, ADirectoryThatCannotBeWrittenToIsNamed) {
  std::ofstream(root_ + "/file") << "a file";
  EXPECT_EQ(DataStore::Open(root_ + "/file/data").status().message(),
            "make directory " + root_ + "/file/data: Not a directory");
  const Status not_a_directory = DataStore::Open(root_ + "/file").status();
  EXPECT_EQ(not_a_directory.error(), ENOTDIR);
  EXPECT_NE(not_a_directory.message().find("data directory cannot be written to: open " + root_),
            std::string::npos)
      << not_a_directory.message();
}

}  // namespace
}  // namespace cachecore
