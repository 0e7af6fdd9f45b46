#include "host/instance/trusted_directory.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "tests/host/instance/temporary_directory.h"

namespace host {
namespace {

constexpr uid_t kOther = 65534;

class TrustedDirectoryTest : public testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "giving files away needs root";
    ASSERT_EQ(mkdir(outer_.c_str(), 0755), 0);
    ASSERT_EQ(mkdir(inner_.c_str(), 0700), 0);
  }

  TemporaryDirectory box_;
  const std::string outer_ = box_ / "outer";
  const std::string inner_ = outer_ + "/inner";
};

TEST_F(TrustedDirectoryTest, OneOfRootBelowDirectoriesOfRootIs) {
  EXPECT_TRUE(CheckTrusted(inner_).ok());
  EXPECT_TRUE(MakeTrustedDirectory(inner_ + "/new/dir", 0700).ok());
}

TEST_F(TrustedDirectoryTest, OneOfAnotherUserIsNot) {
  ASSERT_EQ(chown(inner_.c_str(), kOther, kOther), 0);
  const auto status = CheckTrusted(inner_);
  EXPECT_EQ(status.error(), EPERM);
  EXPECT_NE(status.message().find(inner_ + " belongs to user 65534"), std::string::npos);
}

TEST_F(TrustedDirectoryTest, OneBelowADirectoryOfAnotherUserIsNot) {
  ASSERT_EQ(chown(outer_.c_str(), kOther, kOther), 0);
  EXPECT_EQ(CheckTrusted(inner_).error(), EPERM);
}

TEST_F(TrustedDirectoryTest, OneThatOthersWriteInIsNot) {
  ASSERT_EQ(chmod(inner_.c_str(), 0770), 0);
  EXPECT_EQ(CheckTrusted(inner_).error(), EPERM);
  ASSERT_EQ(chmod(inner_.c_str(), 01777), 0);
  EXPECT_EQ(CheckTrusted(inner_).error(), EPERM);
}

TEST_F(TrustedDirectoryTest, OnTheWayTheyMayWriteWhereTheStickyBitGuardsIt) {
  ASSERT_EQ(chmod(outer_.c_str(), 01777), 0);
  EXPECT_TRUE(CheckTrusted(inner_).ok());
  ASSERT_EQ(chmod(outer_.c_str(), 0777), 0);
  EXPECT_EQ(CheckTrusted(inner_).error(), EPERM);
}

TEST_F(TrustedDirectoryTest, ALinkOfRootIsFollowedAndOneOfAnotherUserIsNot) {
  const std::string link = box_ / "link";
  ASSERT_EQ(symlink("outer/../outer/inner", link.c_str()), 0);
  EXPECT_TRUE(CheckTrusted(link).ok()) << CheckTrusted(link).message();
  ASSERT_EQ(lchown(link.c_str(), kOther, kOther), 0);
  EXPECT_EQ(CheckTrusted(link).error(), EPERM);
  const std::string loop = box_ / "loop";
  ASSERT_EQ(symlink(loop.c_str(), loop.c_str()), 0);
  EXPECT_EQ(CheckTrusted(loop).error(), ELOOP);
}

}  // namespace
}  // namespace host
