// Uses of objects by file systems that are not there, and by claims.

#include "fusefs/server/mounted_objects.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace fusefs {
namespace {

using cachecore::Clock;

constexpr char kNowhere[] = "4095:1048575";  // No file system has this number.

class MountedObjectsTest : public testing::Test {
 protected:
  MountedObjectsTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "holdfast-XXXXXX").string();
    directory_ = mkdtemp(pattern.data());
    Start(/*resumed=*/false);
  }
  ~MountedObjectsTest() override { std::filesystem::remove_all(directory_); }

  void Start(bool resumed) {
    mounted_ = std::make_unique<MountedObjects>(
        directory_ + "/mounted", Clock::Monotonic(), resumed,
        [this](const GrantName& name) { ended_.push_back(name); },
        [this](const GrantName&) { return ++closes_ >= closes_needed_; });
  }

  const GrantName name_{"erofs,f", "f\n "};
  std::string directory_;
  std::vector<GrantName> ended_;
  int closes_ = 0;
  int closes_needed_ = 0;
  std::unique_ptr<MountedObjects> mounted_;
};

TEST_F(MountedObjectsTest, AUseEndsOnceItsFileSystemIsGone) {
  ASSERT_TRUE(mounted_->Add(kNowhere, {name_}).ok());
  EXPECT_FALSE(mounted_->Has(name_));
  EXPECT_EQ(ended_, std::vector{name_});
  EXPECT_FALSE(mounted_->Has(name_));
  EXPECT_EQ(ended_.size(), 1u) << "it ends once";
}

TEST_F(MountedObjectsTest, AnUnmountThatNoDaemonSawIsNoticedByTheNext) {
  ASSERT_TRUE(mounted_->Add(kNowhere, {name_, {"erofs,f", "blob"}}).ok());
  Start(/*resumed=*/true);
  mounted_->Sweep();
  EXPECT_EQ(ended_, (std::vector<GrantName>{{"erofs,f", "blob"}, name_}));
  ended_.clear();
  Start(/*resumed=*/true);
  mounted_->Sweep();
  EXPECT_TRUE(ended_.empty());
}

TEST_F(MountedObjectsTest, ANewConnectionHasNoMounts) {
  ASSERT_TRUE(mounted_->Add(kNowhere, {name_}).ok());
  Start(/*resumed=*/false);
  mounted_->Sweep();
  EXPECT_TRUE(ended_.empty());
}

TEST_F(MountedObjectsTest, AClaimKeepsAnObjectUntilItIsReleasedOrItsTimeIsUp) {
  mounted_->Claim(name_, std::chrono::hours(1));
  ASSERT_TRUE(mounted_->Add(kNowhere, {{"erofs,f", "other"}}).ok());
  mounted_->Sweep();
  EXPECT_EQ(ended_, (std::vector<GrantName>{{"erofs,f", "other"}}));
  mounted_->Release(name_);
  EXPECT_EQ(ended_.back(), name_);
  mounted_->Claim(name_, std::chrono::hours(0));
  EXPECT_FALSE(mounted_->Has(name_));
  EXPECT_EQ(ended_.size(), 3u);
  mounted_->Release({"erofs,f", "unknown"});
  EXPECT_EQ(ended_.size(), 4u) << "what is released is not used, whatever is known of it";
}

TEST_F(MountedObjectsTest, EachMountHasAClaimOfASharedDevice) {
  mounted_->Claim(name_, std::chrono::hours(1));
  mounted_->Claim(name_, std::chrono::hours(1));
  mounted_->Release(name_);
  EXPECT_TRUE(ended_.empty()) << "another mount is being made with it";
  ASSERT_TRUE(mounted_->Add(kNowhere, {name_}).ok());
  EXPECT_FALSE(mounted_->Has(name_));
  EXPECT_EQ(ended_, std::vector{name_});
}

TEST_F(MountedObjectsTest, AMountThatIsMadeLeavesTheClaimOfAnother) {
  mounted_->Claim(name_, std::chrono::hours(1));
  mounted_->Claim(name_, std::chrono::hours(1));
  ASSERT_TRUE(mounted_->Add(kNowhere, {name_}).ok());
  EXPECT_FALSE(mounted_->Has(name_));
  EXPECT_TRUE(ended_.empty());
  mounted_->Release(name_);
  EXPECT_EQ(ended_, std::vector{name_});
}

// A process that waits for its end.
class Waiting {
 public:
  Waiting() : pid_(fork()) {
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      pause();
      _exit(0);
    }
  }
  ~Waiting() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  cachecore::PidStamp stamp() const { return {pid_, cachecore::ProcessStart(pid_).value()}; }
  // Its parent has not taken note of its end.
  void Kill() const {
    kill(pid_, SIGKILL);
    siginfo_t info;
    waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT);
  }

 private:
  const pid_t pid_;
};

TEST_F(MountedObjectsTest, AClaimEndsWithItsProcess) {
  const Waiting killed;
  const Waiting other;
  mounted_->Claim(name_, std::chrono::hours(1), killed.stamp());
  mounted_->Claim(name_, std::chrono::hours(1), other.stamp());
  killed.Kill();
  EXPECT_FALSE(mounted_->Has(name_));
  EXPECT_TRUE(ended_.empty());
  mounted_->Release(name_, killed.stamp());
  EXPECT_TRUE(ended_.empty()) << "it has no claim any more";
  other.Kill();
  EXPECT_FALSE(mounted_->Has(name_));
  EXPECT_EQ(ended_, std::vector{name_});
}

TEST_F(MountedObjectsTest, AProcessThatEndedWithoutADaemonIsNoticedByTheNext) {
  const Waiting mounting;
  mounted_->Claim(name_, std::chrono::hours(1), mounting.stamp());
  Start(/*resumed=*/true);
  EXPECT_FALSE(mounted_->Has(name_));
  EXPECT_TRUE(ended_.empty());
  mounting.Kill();
  Start(/*resumed=*/true);
  EXPECT_FALSE(mounted_->Has(name_));
  EXPECT_EQ(ended_, std::vector{name_});
}

TEST_F(MountedObjectsTest, ACloseIsTriedUntilItIsDone) {
  closes_needed_ = 3;
  mounted_->Release(name_);
  EXPECT_EQ(closes_, 1);
  for (int i = 0; i < 5; ++i) mounted_->Sweep();
  EXPECT_EQ(closes_, 3);
  EXPECT_EQ(ended_.size(), 1u);
}

TEST_F(MountedObjectsTest, AUseThatCannotBeWrittenDownIsNotTaken) {
  std::filesystem::remove_all(directory_);
  EXPECT_FALSE(mounted_->Add(kNowhere, {name_}).ok());
  EXPECT_FALSE(mounted_->Has(name_));
  EXPECT_TRUE(ended_.empty());
}

}  // namespace
}  // namespace fusefs
