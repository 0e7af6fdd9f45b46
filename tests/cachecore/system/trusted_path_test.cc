#include "cachecore/system/trusted_path.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

namespace cachecore {
namespace {

constexpr uid_t kUser = 1000;
constexpr uid_t kOther = 1001;

class TrustedPathTest : public testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "giving files away needs root";
    char name[] = "/tmp/holdfast-path-XXXXXX";
    directory_ = std::filesystem::canonical(mkdtemp(name));
    std::filesystem::create_directories(Path("real/inner"));
    std::filesystem::create_directory(Path("in"));
    Link("in/link", "../real");
  }
  void TearDown() override {
    if (!directory_.empty()) std::filesystem::remove_all(directory_);
  }

  std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  void Link(const std::string& name, const std::string& target) {
    std::filesystem::create_symlink(target, Path(name));
  }
  void SetIn(uid_t link, uid_t directory, mode_t mode) {
    ASSERT_EQ(lchown(Path("in/link").c_str(), link, link), 0);
    ASSERT_EQ(chown(Path("in").c_str(), directory, directory), 0);
    ASSERT_EQ(chmod(Path("in").c_str(), mode), 0);
  }
  // The errno of following the link as root for `user`.
  int Error(uid_t user) const {
    return OpenTrustedPath(Path("in/link/inner"), {.user = user}).status().error();
  }

  std::string directory_;
};

TEST_F(TrustedPathTest, ALinkIsFollowedIfOnlyRootOrTheUserCanExchangeIt) {
  struct Case {
    uid_t link, directory;
    mode_t mode;
    int as_root, as_user;
  };
  const Case cases[] = {
      {0, 0, 0755, 0, 0},
      {kUser, 0, 0755, EACCES, 0},
      {0, kUser, 0755, EACCES, 0},
      {kUser, kUser, 0755, EACCES, 0},
      {kOther, 0, 0755, EACCES, EACCES},
      {kUser, kOther, 0755, EACCES, EACCES},
      {0, 0, 0777, EACCES, EACCES},
      {0, 0, 0775, EACCES, EACCES},
      {0, 0, 01777, 0, 0},
      {kUser, 0, 01777, EACCES, 0},
      {kOther, 0, 01777, EACCES, EACCES},
      {0, kOther, 01777, EACCES, EACCES},
  };
  for (const Case& c : cases) {
    SetIn(c.link, c.directory, c.mode);
    EXPECT_EQ(Error(0), c.as_root) << c.link << " " << c.directory << " " << std::oct << c.mode;
    EXPECT_EQ(Error(kUser), c.as_user) << c.link << " " << c.directory << " " << std::oct << c.mode;
  }
}

TEST_F(TrustedPathTest, TheMessageNamesLinkOwnerAndCure) {
  SetIn(kUser, kUser, 0755);
  const Status status = OpenTrustedPath(Path("in/link"), {}).status();
  EXPECT_EQ(status.message(), "the symbolic link " + Path("in/link") +
                                  " belongs to user 1000 and is not followed; name what it leads "
                                  "to, or make the link in a directory of root");
}

TEST_F(TrustedPathTest, APathLeadsWhereTheKernelWouldGo) {
  Link("absolute", Path("real"));
  Link("chain", "absolute/../in/link/");
  Link("loop", "loop");
  Link("dangling", "nothing");
  for (const std::string path :
       {"real", "real/", "real/.", "./real//inner/..", "chain", "in/link"}) {
    const Result<std::string> real = TrustedRealPath(Path(path));
    ASSERT_TRUE(real.ok()) << path << ": " << real.status().message();
    EXPECT_EQ(*real, Path("real")) << path;
  }
  EXPECT_EQ(*TrustedRealPath("/proc/self/root" + Path("real")), Path("real"));
  EXPECT_EQ(*TrustedRealPath("/"), "/");
  EXPECT_EQ(*TrustedRealPath("."), std::filesystem::current_path());
  EXPECT_EQ(TrustedRealPath(Path("loop")).status().error(), ELOOP);
  EXPECT_EQ(TrustedRealPath(Path("dangling")).status().error(), ENOENT);
  EXPECT_EQ(TrustedRealPath("").status().error(), ENOENT);
  EXPECT_EQ(OpenTrustedPath(Path("chain"), {.follows_links = false}).status().error(), ELOOP);
}

}  // namespace
}  // namespace cachecore
