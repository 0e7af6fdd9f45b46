// The broker: opens as root what sources name, for a process that is not root, and nothing else.

#include "fetcher/source/file_broker.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>

#include "cachecore/system/pinned_file.h"
#include "fetcher/source/local_files.h"

namespace fetcher {
namespace {

using cachecore::FilePin;
using cachecore::OpenPinnedFile;
using cachecore::Result;
using cachecore::UniqueFd;
using testing::HasSubstr;
using Kind = BrokerRequest::Kind;

constexpr uid_t kUser = 1000;

class FileBrokerTest : public testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "not root";
    char name[] = "/tmp/holdfast-broker-XXXXXX";
    directory_ = std::filesystem::canonical(mkdtemp(name));
    std::filesystem::create_directory(directory_ + "/sources");
    chmod(Path("sources").c_str(), 0700);
    Write("key", "the key", 0600);
  }
  void TearDown() override {
    if (!directory_.empty()) std::filesystem::remove_all(directory_);
  }

  std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  void Write(const std::string& name, const std::string& text, mode_t mode, uid_t owner = 0) {
    std::ofstream(Path(name)) << text;
    chmod(Path(name).c_str(), mode);
    ASSERT_EQ(chown(Path(name).c_str(), owner, owner), 0);
  }
  // A source with an image and a key.
  void Register(const std::string& volume, uint64_t inode = 0, mode_t mode = 0600,
                uid_t owner = 0) {
    const std::string url = "file://" + Path("image");
    Write("sources/" + volume + ".json",
          R"({"version":1,"origins":["file://)" + directory_ + R"(/"],"client_key":")" +
              Path("key") + R"(","files":[{"url":")" + url + R"(","path":")" + Path("image") +
              R"(","owner":0,"inode":)" + std::to_string(inode) + R"(},{"path":")" + Path("key") +
              R"(","owner":0}]})",
          mode, owner);
  }
  RegisteredFiles Files() const { return {Path("sources"), Path("device.sock")}; }
  void StartOne() {
    auto started = StartBroker(Files());
    ASSERT_TRUE(started.ok());
    broker_ = std::move(started).value();
  }
  Result<UniqueFd> Ask(Kind kind, const std::string& volume, const std::string& name) {
    return AskBroker(broker_, {kind, volume, name});
  }
  static std::string Text(const Result<UniqueFd>& file) {
    char text[64] = {};
    return file.ok() && read(file->get(), text, sizeof(text) - 1) >= 0 ? text : "";
  }

  std::string directory_;
  UniqueFd broker_;
};

TEST_F(FileBrokerTest, OpensWhatASourceNamesAndNothingElse) {
  Write("image", "the image", 0600);
  Write("secret", "a secret", 0600);
  Register("v");
  StartOne();
  EXPECT_EQ(Text(Ask(Kind::kObject, "v", "file://" + Path("image"))), "the image");
  EXPECT_EQ(Text(Ask(Kind::kFile, "", Path("key"))), "the key");
  EXPECT_THAT(Text(Ask(Kind::kSource, "v", "")), HasSubstr("origins"));
  EXPECT_EQ(Ask(Kind::kFile, "", Path("secret")).status().error(), EPERM);
  EXPECT_EQ(Ask(Kind::kFile, "", Path("image")).status().error(), EPERM);
  EXPECT_EQ(Ask(Kind::kObject, "v", "file://" + Path("secret")).status().error(), EPERM);
  EXPECT_EQ(Ask(Kind::kSource, "../key", "").status().error(), EINVAL);
  EXPECT_EQ(Ask(Kind::kFile, "", std::string(100000, 'x')).ok(), false);
}

TEST_F(FileBrokerTest, SourcesThatAreNotRootsAloneNameNothing) {
  Register("writable", 0, 0622);
  Register("others", 0, 0600, kUser);
  std::filesystem::create_symlink(Path("elsewhere.json"), Path("sources/link.json"));
  StartOne();
  EXPECT_EQ(Ask(Kind::kFile, "", Path("key")).status().error(), EPERM);
  EXPECT_FALSE(Ask(Kind::kSource, "link", "").ok());
  Register("v");
  EXPECT_EQ(Text(Ask(Kind::kFile, "", Path("key"))), "the key");
  chmod(Path("sources").c_str(), 0777);
  EXPECT_EQ(Ask(Kind::kFile, "", Path("key")).status().error(), EPERM);
}

TEST_F(FileBrokerTest, ARotatedFileIsOpenedButNotASwappedObject) {
  Write("image", "the image", 0600);
  struct stat info;
  ASSERT_EQ(stat(Path("image").c_str(), &info), 0);
  Register("v", info.st_ino);
  StartOne();
  Write("next", "the next key", 0600);
  std::filesystem::rename(Path("next"), Path("key"));
  EXPECT_EQ(Text(Ask(Kind::kFile, "", Path("key"))), "the next key");
  Write("other", "another image", 0600);
  std::filesystem::rename(Path("other"), Path("image"));
  EXPECT_EQ(Ask(Kind::kObject, "v", "file://" + Path("image")).status().error(), ESTALE);
}

TEST_F(FileBrokerTest, LinksAndOwnersArePinned) {
  Write("theirs", "theirs", 0600, kUser);
  EXPECT_EQ(OpenPinnedFile({Path("theirs"), 0, 0, FilePin::Links::kOfOwner}).status().error(),
            EPERM);
  std::filesystem::create_symlink(Path("key"), Path("link"));
  EXPECT_EQ(OpenPinnedFile({Path("link"), 0, 0, FilePin::Links::kNone}).status().error(), ELOOP);
  EXPECT_TRUE(OpenPinnedFile({Path("link"), 0, 0, FilePin::Links::kOfOwner}).ok());
  ASSERT_EQ(lchown(Path("link").c_str(), kUser, kUser), 0);
  EXPECT_EQ(OpenPinnedFile({Path("link"), 0, 0, FilePin::Links::kOfOwner}).status().error(),
            EACCES);
  ASSERT_EQ(mkfifo(Path("fifo").c_str(), 0600), 0);
  EXPECT_EQ(OpenPinnedFile({Path("fifo")}).status().error(), EINVAL);
  EXPECT_EQ(OpenPinnedFile({"/dev/null", 0, 0, FilePin::Links::kNone}).status().error(), EINVAL);
}

TEST_F(FileBrokerTest, EndsWithItsFetcherAndTheFetcherSeesItsEnd) {
  StartOne();
  const LocalFiles local(Files(), std::move(broker_));
  pollfd end = {local.broker_fd(), POLLIN, 0};
  EXPECT_EQ(poll(&end, 1, 0), 0);
  {
    auto other = StartBroker(Files());
    ASSERT_TRUE(other.ok());
  }  // Its fetcher's end is closed: it ends, and wait finds it.
  EXPECT_GT(waitpid(-1, nullptr, 0), 0);
}

TEST_F(FileBrokerTest, AUserThatWasBecomeCanNeitherOpenNorGoBack) {
  Write("image", "the image", 0600);
  Register("v");
  StartOne();
  const pid_t child = fork();
  if (child == 0) {
    const bool became = BecomeUser({"user", "/", kUser, kUser}).ok();
    const bool opens = open(Path("key").c_str(), O_RDONLY) >= 0;
    const bool is_given = Text(Ask(Kind::kFile, "", Path("key"))) == "the key";
    _exit(became && !opens && is_given && setuid(0) != 0 ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace fetcher
