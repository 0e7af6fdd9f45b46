#include "host/mount/image_mount_options.h"

#include <gtest/gtest.h>
#include <sys/mount.h>

#include <cerrno>

namespace host {
namespace {

using Words = std::vector<std::string>;

constexpr uint64_t kSafe = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;

ImageMountOptions Parsed(const std::string& text, bool suid = false, bool dev = false) {
  const auto options = ImageMountOptions::Parse(text, suid, dev);
  EXPECT_TRUE(options.ok()) << options.status().message();
  return options.ok() ? *options : ImageMountOptions();
}

TEST(ImageMountOptionsTest, WithoutAnyAMountIsReadOnlyNosuidAndNodev) {
  EXPECT_EQ(Parsed("").attributes, kSafe);
  EXPECT_EQ(Parsed("", true, false).attributes, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV);
  EXPECT_EQ(Parsed("", false, true).attributes, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID);
  EXPECT_EQ(Parsed("suid,dev").attributes, uint64_t{MOUNT_ATTR_RDONLY});
}

TEST(ImageMountOptionsTest, WordsOfEveryMountAreSplitFromTheFileSystemsOwn) {
  const ImageMountOptions options =
      Parsed("noexec,cache_strategy=disabled,noatime,defaults,,nodiratime,nofail,x-a=b,acl");
  EXPECT_EQ(options.attributes,
            kSafe | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOATIME | MOUNT_ATTR_NODIRATIME);
  EXPECT_EQ(options.own, (Words{"cache_strategy=disabled", "acl"}));
}

TEST(ImageMountOptionsTest, ALaterWordOutweighsAnEarlierOne) {
  EXPECT_EQ(Parsed("noatime,strictatime").attributes, kSafe | MOUNT_ATTR_STRICTATIME);
  EXPECT_EQ(Parsed("noatime,relatime").attributes, kSafe);
  EXPECT_EQ(Parsed("noexec,exec,suid,nosuid", true, false).attributes, kSafe);
  EXPECT_EQ(Parsed("user", true, true).attributes, kSafe | MOUNT_ATTR_NOEXEC);
}

TEST(ImageMountOptionsTest, WordsThatAskForSomethingElseAreRefused) {
  for (const char* word : {"rw", "remount", "bind", "noatime,rbind", "move"}) {
    EXPECT_EQ(ImageMountOptions::Parse(word, false, false).status().error(), EINVAL) << word;
  }
}

}  // namespace
}  // namespace host
