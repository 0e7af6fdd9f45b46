#include "host/notify/stored_descriptors.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

namespace host {
namespace {

using cachecore::UniqueFd;
using Outcome = StoredDescriptors::AddOutcome;

constexpr int kFirstFd = 40;

UniqueFd NewFile() { return UniqueFd(memfd_create("file", MFD_CLOEXEC)); }

struct Pipe {
  Pipe() {
    int fds[2];
    EXPECT_EQ(pipe2(fds, O_CLOEXEC), 0);
    reader.Reset(fds[0]);
    writer.Reset(fds[1]);
  }
  UniqueFd reader;
  UniqueFd writer;
};

class StoredDescriptorsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto store = StoredDescriptors::Create(4, kFirstFd);
    ASSERT_TRUE(store.ok()) << store.status().message();
    store_ = std::move(store).value();
  }
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (size_t i = 0; i < store_->size(); ++i) names.emplace_back(store_->name(i));
    return names;
  }
  Outcome AddCopy(const UniqueFd& fd, const std::string& name, bool poll = true) {
    return store_->Add(UniqueFd(fcntl(fd.get(), F_DUPFD_CLOEXEC, 0)), name, poll);
  }
  bool IsReadable() const {
    pollfd wait{.fd = store_->poll_fd(), .events = POLLIN, .revents = 0};
    return poll(&wait, 1, 0) == 1;
  }
  std::unique_ptr<StoredDescriptors> store_;
};

using NameList = std::vector<std::string>;

TEST_F(StoredDescriptorsTest, KeepsItsOwnCopyInOrderAtHighNumbersThatNoChildInherits) {
  UniqueFd file = NewFile();
  struct stat expected, stored;
  ASSERT_EQ(fstat(file.get(), &expected), 0);
  EXPECT_EQ(store_->Add(std::move(file), "a", true), Outcome::kStored);
  EXPECT_EQ(store_->Add(NewFile(), "b", true), Outcome::kStored);
  EXPECT_EQ(store_->Add(NewFile(), "a", true), Outcome::kStored);
  EXPECT_EQ(Names(), (NameList{"a", "b", "a"}));
  for (size_t i = 0; i < store_->size(); ++i) {
    EXPECT_GE(store_->fd(i), kFirstFd);
    EXPECT_EQ(fcntl(store_->fd(i), F_GETFD), FD_CLOEXEC);
  }
  ASSERT_EQ(fstat(store_->fd(0), &stored), 0);
  EXPECT_EQ(stored.st_ino, expected.st_ino);
}

TEST_F(StoredDescriptorsTest, TheSameOpenFileIsStoredOnceWhateverItsName) {
  UniqueFd file = NewFile();
  EXPECT_EQ(AddCopy(file, "a"), Outcome::kStored);
  EXPECT_EQ(AddCopy(file, "a"), Outcome::kDuplicate);
  EXPECT_EQ(AddCopy(file, "b"), Outcome::kDuplicate);
  EXPECT_EQ(Names(), (NameList{"a"}));
}

TEST_F(StoredDescriptorsTest, TwoOpensOfOneDeviceAreTwoFiles) {
  EXPECT_EQ(store_->Add(UniqueFd(open("/dev/null", O_RDWR | O_CLOEXEC)), "a", true),
            Outcome::kStored);
  EXPECT_EQ(store_->Add(UniqueFd(open("/dev/null", O_RDWR | O_CLOEXEC)), "a", true),
            Outcome::kStored);
}

TEST_F(StoredDescriptorsTest, AFullStoreRefusesAndTakesAgainAfterARemoval) {
  for (const char* name : {"a", "b", "c", "d"}) {
    EXPECT_EQ(store_->Add(NewFile(), name, true), Outcome::kStored);
  }
  EXPECT_EQ(store_->Add(NewFile(), "e", true), Outcome::kFull);
  EXPECT_EQ(store_->Remove("b"), 1u);
  EXPECT_EQ(store_->Add(NewFile(), "e", true), Outcome::kStored);
  EXPECT_EQ(Names(), (NameList{"a", "c", "d", "e"}));
}

TEST_F(StoredDescriptorsTest, ARefusedDescriptorIsClosed) {
  Pipe pipe;
  for (const char* name : {"a", "b", "c", "d"}) store_->Add(NewFile(), name, true);
  EXPECT_EQ(store_->Add(std::move(pipe.writer), "e", true), Outcome::kFull);
  pollfd wait{.fd = pipe.reader.get(), .events = 0, .revents = 0};
  EXPECT_EQ(poll(&wait, 1, 0), 1);
}

TEST_F(StoredDescriptorsTest, RemoveTakesAllOfThatNameAndOnlyThose) {
  for (const char* name : {"a", "ab", "a"}) store_->Add(NewFile(), name, true);
  EXPECT_EQ(store_->Remove("a"), 2u);
  EXPECT_EQ(store_->Remove("a"), 0u);
  EXPECT_EQ(Names(), (NameList{"ab"}));
}

TEST_F(StoredDescriptorsTest, AFileThatHangsUpIsDroppedUnlessItIsNotPolled) {
  Pipe polled, unpolled;
  store_->Add(NewFile(), "plain", true);
  store_->Add(std::move(polled.reader), "polled", true);
  store_->Add(std::move(unpolled.reader), "unpolled", false);
  EXPECT_EQ(store_->RemoveHungUp(), 0u);
  EXPECT_FALSE(IsReadable());
  polled.writer.Reset();
  unpolled.writer.Reset();
  EXPECT_TRUE(IsReadable());
  EXPECT_EQ(store_->RemoveHungUp(), 1u);
  EXPECT_EQ(Names(), (NameList{"plain", "unpolled"}));
  EXPECT_FALSE(IsReadable());
}

TEST_F(StoredDescriptorsTest, DataToReadIsNoReasonToWakeOrToDrop) {
  Pipe pipe;
  store_->Add(std::move(pipe.reader), "pipe", true);
  ASSERT_EQ(write(pipe.writer.get(), "x", 1), 1);
  EXPECT_FALSE(IsReadable());
  EXPECT_EQ(store_->RemoveHungUp(), 0u);
}

TEST_F(StoredDescriptorsTest, ARemovedFileWhoseTwinLivesOnIsPolledNoMore) {
  Pipe pipe;
  AddCopy(pipe.reader, "pipe");
  EXPECT_EQ(store_->Remove("pipe"), 1u);
  pipe.writer.Reset();
  EXPECT_FALSE(IsReadable());
}

TEST_F(StoredDescriptorsTest, ManyHangUpsAtOnceAreAllDroppedInTheEnd) {
  auto large = StoredDescriptors::Create(100, kFirstFd);
  ASSERT_TRUE(large.ok());
  std::vector<Pipe> pipes(100);
  for (Pipe& pipe : pipes) large.value()->Add(std::move(pipe.reader), "p", true);
  ASSERT_EQ(large.value()->size(), 100u);
  pipes.clear();
  while (large.value()->RemoveHungUp() > 0) {
  }
  EXPECT_EQ(large.value()->size(), 0u);
}

TEST_F(StoredDescriptorsTest, AStoreOfNoneRefusesAll) {
  auto none = StoredDescriptors::Create(0, kFirstFd);
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(none.value()->Add(NewFile(), "a", true), Outcome::kFull);
}

}  // namespace
}  // namespace host
