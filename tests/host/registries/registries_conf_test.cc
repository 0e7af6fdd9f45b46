#include "host/registries/registries_conf.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace host {
namespace {

using cachecore::Result;

RegistriesConf Parsed(const std::string& text, const std::string& more = "") {
  Result<RegistriesConf> conf = RegistriesConf::Parse({{"a.conf", text}, {"b.conf", more}});
  EXPECT_TRUE(conf.ok()) << conf.status().message();
  return std::move(conf).value();
}

std::string Sources(const RegistriesConf& conf, const std::string& reference) {
  const Result<ImageReference> image = ParseImageReference(reference);
  EXPECT_TRUE(image.ok()) << reference;
  const Result<std::vector<PullSource>> sources = conf.SourcesOf(*image);
  if (!sources.ok()) return std::to_string(sources.status().error());
  std::string all;
  for (const PullSource& source : *sources) {
    all += (all.empty() ? "" : " ") + source.repository + (source.is_insecure ? "!" : "");
  }
  return all;
}

const std::string kDigest = "@sha256:" + std::string(64, 'a');

TEST(RegistriesConfTest, WithoutAnEntryARegistryIsWhereItSays) {
  const RegistriesConf conf = Parsed("unqualified-search-registries = ['x.example']\n");
  EXPECT_EQ(Sources(conf, "oci://h.example:5000/a/b:1"), "h.example:5000/a/b");
  EXPECT_EQ(Sources(conf, "oci://docker.io/debian:12"), "docker.io/library/debian");
}

TEST(RegistriesConfTest, MirrorsComeBeforeTheLocationAndTheLongestPrefixCounts) {
  const RegistriesConf conf = Parsed(R"(
[[registry]]
prefix = "h.example"
location = "other.example/all"
[[registry.mirror]]
location = "m1.example:5000/x/"
insecure = true
[[registry.mirror]]
location = "m2.example"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "m3.example"
pull-from-mirror = "tag-only"
[[registry]]
location = "h.example/team"
)");
  EXPECT_EQ(Sources(conf, "oci://h.example/a:1"),
            "m1.example:5000/x/a! m3.example/a other.example/all/a");
  EXPECT_EQ(Sources(conf, "oci://h.example/a" + kDigest),
            "m1.example:5000/x/a! m2.example/a other.example/all/a");
  EXPECT_EQ(Sources(conf, "oci://h.example/team/a:1"), "h.example/team/a");
  EXPECT_EQ(Sources(conf, "oci://h.example.org/a:1"), "h.example.org/a");
}

TEST(RegistriesConfTest, WildcardsStandForHostsBelow) {
  const RegistriesConf conf = Parsed(R"(
[[registry]]
prefix = "*.example"
insecure = true
[[registry]]
prefix = "*.deep.example"
location = "one.place/x"
)");
  EXPECT_EQ(Sources(conf, "oci://a.example/r:1"), "a.example/r!");
  EXPECT_EQ(Sources(conf, "oci://a.deep.example/r:1"), "one.place/x/r");
  EXPECT_EQ(Sources(conf, "oci://example.org/a.example:1"), "example.org/a.example");
}

TEST(RegistriesConfTest, ALaterFileReplacesAnEntryAndBlocksARegistry) {
  const RegistriesConf conf =
      Parsed("[[registry]]\nlocation='h.example'\n[[registry.mirror]]\nlocation='m'\n",
             "[[registry]]\nlocation='h.example'\nblocked=true\n");
  EXPECT_EQ(Sources(conf, "oci://h.example/a:1"), std::to_string(EACCES));
}

TEST(RegistriesConfTest, TheFirstVersionOfTheFormatIsRead) {
  const RegistriesConf conf = Parsed(
      "[registries.search]\nregistries=['s']\n[registries.insecure]\nregistries=['i.example']\n"
      "[registries.block]\nregistries=['b.example']\n");
  EXPECT_EQ(Sources(conf, "oci://i.example/a:1"), "i.example/a!");
  EXPECT_EQ(Sources(conf, "oci://b.example/a:1"), std::to_string(EACCES));
}

TEST(RegistriesConfTest, WhatCantBeFollowedIsRefusedWithItsFile) {
  for (const auto& [text, error] :
       {std::pair<std::string, int>{"credential-helpers = ['secretservice']", ENOTSUP},
        {"[[registry]]\nlocation = 'https://h.example'", EBADMSG},
        {"[[registry]]\ninsecure = true", EBADMSG},
        {"[[registry", EBADMSG}}) {
    const Result<RegistriesConf> conf = RegistriesConf::Parse({{"a.conf", text}});
    ASSERT_FALSE(conf.ok()) << text;
    EXPECT_EQ(conf.status().error(), error) << text;
    EXPECT_TRUE(conf.status().message().starts_with("a.conf")) << conf.status().message();
  }
}

}  // namespace
}  // namespace host
