#include "host/registries/image_reference.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <vector>

namespace host {
namespace {

using Kind = ImageReference::Kind;

const std::string kDigest = "sha256:" + std::string(64, 'a');

ImageReference Parsed(const std::string& text) {
  const auto reference = ParseImageReference(text);
  EXPECT_TRUE(reference.ok()) << reference.status().message();
  return reference.ok() ? *reference : ImageReference();
}

std::string Refusal(const std::string& text) {
  const auto reference = ParseImageReference(text);
  EXPECT_EQ(reference.status().error(), EINVAL) << text;
  return reference.status().message();
}

TEST(ImageReferenceTest, ATagAndADigestAreTakenApart) {
  const ImageReference tagged = Parsed("oci://Registry.Example:5000/a/b-c:v1.2");
  EXPECT_EQ(tagged.kind, Kind::kRegistry);
  EXPECT_EQ(tagged.registry, "registry.example:5000");
  EXPECT_EQ(tagged.repository, "a/b-c");
  EXPECT_EQ(tagged.tag, "v1.2");
  EXPECT_EQ(tagged.digest, "");
  const ImageReference pinned = Parsed("oci://[::1]:5000/a@" + kDigest);
  EXPECT_EQ(pinned.registry, "[::1]:5000");
  EXPECT_EQ(pinned.digest, kDigest);
  const ImageReference blob = Parsed("oci-blob://h/a/b@" + kDigest);
  EXPECT_EQ(blob.kind, Kind::kBlob);
  EXPECT_EQ(blob.digest, kDigest);
}

TEST(ImageReferenceTest, ATagBeforeADigestSaysNothing) {
  EXPECT_EQ(Parsed("oci://h/a:v1@" + kDigest).Text(), "oci://h/a@" + kDigest);
}

TEST(ImageReferenceTest, ALayoutIsADirectoryAndPerhapsATag) {
  const ImageReference plain = Parsed("oci-layout:/srv/images/x/");
  EXPECT_EQ(plain.kind, Kind::kLayout);
  EXPECT_EQ(plain.directory, "/srv/images/x");
  EXPECT_EQ(plain.tag, "");
  const ImageReference tagged = Parsed("oci-layout:/srv/a:b/x:v1");
  EXPECT_EQ(tagged.directory, "/srv/a:b/x");
  EXPECT_EQ(tagged.tag, "v1");
  EXPECT_EQ(Parsed("oci-layout:/srv/a:b/x").directory, "/srv/a:b/x");
  EXPECT_EQ(Parsed("oci-layout:x").directory.front(), '/');
}

TEST(ImageReferenceTest, ALayoutsImageMayBeNamedByItsDigest) {
  const ImageReference named = Parsed("oci-layout:/srv/a@b:v1@" + kDigest);
  EXPECT_EQ(named.directory, "/srv/a@b");
  EXPECT_EQ(named.tag, "");
  EXPECT_EQ(named.digest, kDigest);
  EXPECT_EQ(named.Text(), "oci-layout:/srv/a@b@" + kDigest);
  EXPECT_EQ(Parsed("oci-layout:/a@sha256:x/b").directory, "/a@sha256:x/b");
  EXPECT_EQ(Refusal("oci-layout:/x@sha256:12"),
            "'oci-layout:/x@sha256:12' has the bad digest 'sha256:12'; a digest is sha256: and 64 "
            "hex digits in lower case");
}

TEST(ImageReferenceTest, ItsTextParsesToItself) {
  for (const char* text : {"oci://h:5000/a/b:v1", "oci-layout:/srv/x:v1", "oci-layout:/srv/x"}) {
    EXPECT_EQ(Parsed(text).Text(), text);
  }
  EXPECT_EQ(Parsed("oci-blob://h/a@" + kDigest).Text(), "oci-blob://h/a@" + kDigest);
}

TEST(ImageReferenceTest, WhatIsWrongIsSaid) {
  EXPECT_EQ(Refusal("oci://h/a"),
            "'oci://h/a' has neither tag nor digest; add :TAG (:latest, say) or @sha256:HEX");
  EXPECT_EQ(Refusal("oci://h/a@sha256:12"),
            "'oci://h/a@sha256:12' has the bad digest 'sha256:12'; a digest is sha256: and 64 hex "
            "digits in lower case");
  EXPECT_EQ(Refusal("oci://h/A:v1"),
            "'oci://h/A:v1' has the bad repository name 'A'; it consists of a-z 0-9 . _ - and "
            "slashes between them");
  EXPECT_EQ(Refusal("oci://h/a:-x"), "'oci://h/a:-x' has the bad tag '-x'");
  EXPECT_EQ(Refusal("oci://h"),
            "'oci://h' names no registry; a reference is oci://HOST[:PORT]/REPO:TAG");
  EXPECT_EQ(Refusal("oci-blob://h/a:v1"),
            "'oci-blob://h/a:v1' has no digest; a blob is oci-blob://HOST[:PORT]/REPO@sha256:HEX");
  EXPECT_EQ(Refusal("oci-layout:"),
            "'oci-layout:' names no directory; a layout is oci-layout:DIR[:TAG]");
  EXPECT_EQ(Refusal("docker://h/a:v1"),
            "'docker://h/a:v1' is not an image reference; use oci://HOST/REPO:TAG, "
            "oci://HOST/REPO@sha256:HEX, oci-layout:DIR[:TAG] or oci-blob://HOST/REPO@sha256:HEX");
  for (const char* bad : {"oci://", "oci:///a:v1", "oci://h:0/a:v1", "oci://h:99999/a:v1",
                          "oci://h/a//b:v1", "oci://h/../b:v1", "oci://h/a/:v1", "oci://-h/a:v1",
                          "oci://h/a:v1:v2", "oci://h/a:", "oci://h/a?x:v1", "oci-layout:/x:"}) {
    EXPECT_NE(Refusal(bad), "") << bad;
  }
}

TEST(ImageReferenceTest, APasswordIsRefusedAndNotQuoted) {
  const std::string refusal = Refusal("oci://user:secret@h/a:v1");
  EXPECT_EQ(refusal.find("secret"), std::string::npos) << refusal;
  EXPECT_NE(refusal.find("--auth-file"), std::string::npos) << refusal;
  const auto mirror = CheckMirror("user:secret@h");
  EXPECT_FALSE(mirror.ok());
  EXPECT_EQ(mirror.message().find("secret"), std::string::npos) << mirror.message();
}

TEST(ImageReferenceTest, AMirrorIsAHostAndPerhapsAPrefix) {
  for (const char* good : {"h", "h:5000", "h/a/b", "[::1]:80/a"})
    EXPECT_TRUE(CheckMirror(good).ok());
  for (const char* bad : {"", "h/", "http://h", "h/A", "h:x"}) EXPECT_FALSE(CheckMirror(bad).ok());
}

}  // namespace
}  // namespace host
