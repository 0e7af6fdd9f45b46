#include "host/images/image_store.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>

#include "cachecore/base/digest.h"
#include "cachecore/system/files.h"
#include "tests/host/instance/temporary_directory.h"

namespace host {
namespace {

using cachecore::DigestHex;
using cachecore::DigestOf;
using cachecore::IsDigest;
using cachecore::ListDirectory;
using cachecore::WriteFileAtomically;

class ImageStoreTest : public testing::Test {
 protected:
  TemporaryDirectory root_;
  const Instance instance_ = *Instance::Make(root_.path(), "t");
  const ImageStore store_{instance_};
};

TEST_F(ImageStoreTest, ATextIsFoundByItsDigest) {
  const std::string digest = DigestOf("text");
  EXPECT_EQ(store_.Text(digest).status().error(), ENOENT);
  ASSERT_TRUE(store_.Keep("text").ok());
  ASSERT_TRUE(store_.Keep("text").ok());
  EXPECT_EQ(*store_.Text(digest), "text");
}

TEST_F(ImageStoreTest, ADamagedTextIsNotThereAndIsWrittenAgain) {
  ASSERT_TRUE(store_.Keep("text").ok());
  const std::string path =
      instance_.StateDir() + "/images/blobs/sha256/" + DigestHex(DigestOf("text"));
  ASSERT_TRUE(WriteFileAtomically(path, "tent", 0600).ok());
  EXPECT_EQ(store_.Text(DigestOf("text")).status().error(), ENOENT);
  ASSERT_TRUE(WriteFileAtomically(path, "tent", 0600).ok());
  ASSERT_TRUE(store_.Keep("text").ok());
  EXPECT_EQ(*store_.Text(DigestOf("text")), "text");
}

TEST_F(ImageStoreTest, ATagMeansWhatItMeantLast) {
  EXPECT_EQ(store_.TagDigest("oci://h/a:v1").status().error(), ENOENT);
  ASSERT_TRUE(store_.KeepTag("oci://h/a:v1", DigestOf("1")).ok());
  ASSERT_TRUE(store_.KeepTag("oci://h/a:v2", DigestOf("2")).ok());
  EXPECT_EQ(*store_.TagDigest("oci://h/a:v1"), DigestOf("1"));
  ASSERT_TRUE(store_.KeepTag("oci://h/a:v1", DigestOf("3")).ok());
  EXPECT_EQ(*store_.TagDigest("oci://h/a:v1"), DigestOf("3"));
  EXPECT_EQ(*store_.TagDigest("oci://h/a:v2"), DigestOf("2"));
}

TEST_F(ImageStoreTest, ADamagedTagIsNotThere) {
  ASSERT_TRUE(store_.KeepTag("oci://h/a:v1", DigestOf("1")).ok());
  const std::string directory = instance_.StateDir() + "/images/tags";
  const std::string path = directory + "/" + ListDirectory(directory).front();
  for (const char* text :
       {"", "{}", "[1]", "{\"reference\":\"oci://h/a:v1\",\"manifest\":\"x\"}"}) {
    ASSERT_TRUE(WriteFileAtomically(path, text, 0600).ok());
    EXPECT_EQ(store_.TagDigest("oci://h/a:v1").status().error(), ENOENT) << text;
  }
}

TEST(ContentDigestTest, ADigestIsSha256InHex) {
  EXPECT_EQ(DigestOf(""),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_TRUE(IsDigest(DigestOf("x")));
  EXPECT_FALSE(IsDigest("sha256:" + std::string(64, 'A')));
  EXPECT_FALSE(IsDigest("sha256:" + std::string(63, 'a')));
  EXPECT_FALSE(IsDigest("sha512:" + std::string(64, 'a')));
}

}  // namespace
}  // namespace host
