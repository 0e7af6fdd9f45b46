#include "fetcher/auth/docker_auth.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>

namespace fetcher {
namespace {

DockerAuth Parsed(const std::string& text) {
  auto auth = DockerAuth::Parse(text);
  EXPECT_TRUE(auth.ok()) << auth.status().message();
  return auth.ok() ? *auth : DockerAuth();
}

// "user:pass:word" and "deep:x".
constexpr char kFile[] = R"({"auths":{"h:5000":{"auth":"dXNlcjpwYXNzOndvcmQ="},
  "h:5000/a/b":{"auth":"ZGVlcDp4"}, "https://old.example/v1/":{"username":"u","password":"p"},
  "id.example":{"auth":"dTo=","identitytoken":"T"}, "empty.example":{}}})";

TEST(DockerAuthTest, TheLongestPathCounts) {
  const DockerAuth auth = Parsed(kFile);
  EXPECT_EQ(auth.Find("h:5000", "a/c").credentials.user, "user");
  EXPECT_EQ(auth.Find("h:5000", "a/c").credentials.password, "pass:word");
  EXPECT_EQ(auth.Find("h:5000", "a/b").credentials.user, "deep");
  EXPECT_EQ(auth.Find("h:5000", "a/b/c").credentials.user, "deep");
  EXPECT_EQ(auth.Find("h:5000", "a/bc").credentials.user, "user");
}

TEST(DockerAuthTest, AnotherHostOrPortHasNoCredentials) {
  const DockerAuth auth = Parsed(kFile);
  for (const char* registry : {"h", "h:5001", "xh:5000", "empty.example", "a"}) {
    const AuthChoice choice = auth.Find(registry, "a/b");
    EXPECT_TRUE(choice.credentials.empty()) << registry;
    EXPECT_EQ(choice.helper, "");
  }
}

TEST(DockerAuthTest, OldNamesAndIdentityTokensAreUnderstood) {
  const DockerAuth auth = Parsed(kFile);
  EXPECT_EQ(auth.Find("old.example", "x").credentials.password, "p");
  EXPECT_EQ(auth.Find("id.example", "x").credentials.identity_token, "T");
}

TEST(DockerAuthTest, DockersOwnRegistryHasThreeNames) {
  const DockerAuth auth =
      Parsed(R"({"auths":{"https://index.docker.io/v1/":{"auth":"ZGVlcDp4"}}})");
  EXPECT_EQ(auth.Find("docker.io", "library/x").credentials.user, "deep");
  EXPECT_EQ(auth.Find("docker.io", "library/x").server, "https://index.docker.io/v1/");
  EXPECT_EQ(ApiHost("docker.io"), "registry-1.docker.io");
  EXPECT_EQ(ApiHost("h:5000"), "h:5000");
}

TEST(DockerAuthTest, AHostsHelperGoesBeforeTheStore) {
  const DockerAuth auth = Parsed(R"({"credHelpers":{"h":"own"},"credsStore":"all",
                                     "auths":{"h":{"auth":"ZGVlcDp4"}}})");
  EXPECT_EQ(auth.Find("h", "a").helper, "own");
  EXPECT_EQ(auth.Find("h", "a").server, "h");
  EXPECT_EQ(auth.Find("h", "a").credentials.user, "deep");
  EXPECT_EQ(auth.Find("g", "a").helper, "all");
}

TEST(DockerAuthTest, WhatIsNoSuchFileIsRefusedAndNotQuoted) {
  for (const char* text :
       {"", "[]", "{\"auths\":[]}", "{\"auths\":{\"h\":{\"auth\":\"c2VjcmV0\"}}}",
        "{\"auths\":{\"h\":{\"auth\":\"!!!!\"}}}", "{\"credHelpers\":{\"h\":\"../x\"}}",
        "{\"credHelpers\":{\"h\":7}}", "{\"credsStore\":\"a b\"}"}) {
    const auto auth = DockerAuth::Parse(text);
    EXPECT_EQ(auth.status().error(), EINVAL) << text;
    EXPECT_EQ(auth.status().message().find("c2VjcmV0"), std::string::npos);
  }
}

TEST(DockerAuthTest, AHelpersAnswerIsAPasswordOrAnIdentityToken) {
  const auto password = ParseHelperAnswer(R"({"ServerURL":"h","Username":"u","Secret":"s"})");
  ASSERT_TRUE(password.ok());
  EXPECT_EQ(password->user, "u");
  EXPECT_EQ(password->password, "s");
  const auto token = ParseHelperAnswer(R"({"Username":"<token>","Secret":"s"})");
  ASSERT_TRUE(token.ok());
  EXPECT_EQ(token->identity_token, "s");
  EXPECT_TRUE(token->user.empty());
  for (const char* bad : {"", "credentials not found", "{}", "[]", "{\"Secret\":7}"}) {
    EXPECT_EQ(ParseHelperAnswer(bad).status().error(), EINVAL) << bad;
  }
}

}  // namespace
}  // namespace fetcher
