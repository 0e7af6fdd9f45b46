#include "fetcher/auth/registry_challenge.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>

namespace fetcher {
namespace {

TEST(ChallengeTest, ATokenServiceIsNamed) {
  const auto challenges = ParseChallenges(
      R"(Bearer realm="https://auth.example/token?x=a,b",service="s \"q\"",scope=repository:a:pull)");
  ASSERT_EQ(challenges.size(), 1u);
  EXPECT_EQ(challenges[0].scheme, "bearer");
  EXPECT_EQ(challenges[0].parameters.at("realm"), "https://auth.example/token?x=a,b");
  EXPECT_EQ(challenges[0].parameters.at("service"), "s \"q\"");
  EXPECT_EQ(challenges[0].parameters.at("scope"), "repository:a:pull");
}

TEST(ChallengeTest, SeveralAreToldApart) {
  const auto challenges = ParseChallenges(
      R"(Negotiate, Basic realm="a, b", Bearer Realm = "r" , error="invalid_token")");
  ASSERT_EQ(challenges.size(), 3u);
  EXPECT_EQ(challenges[0].scheme, "negotiate");
  EXPECT_EQ(challenges[1].parameters.at("realm"), "a, b");
  EXPECT_EQ(challenges[2].parameters.at("realm"), "r");
  EXPECT_EQ(challenges[2].parameters.at("error"), "invalid_token");
}

TEST(ChallengeTest, WhatCannotBeUnderstoodIsLeftOut) {
  for (const char* text : {"", ",,,", "=", "\"", "Bearer realm=\"never ends", "a=b",
                           "\x01\x02 = \"", "Bearer \\", "Bearer realm=\"x\\"}) {
    for (const Challenge& challenge : ParseChallenges(text)) EXPECT_EQ(challenge.scheme, "bearer");
  }
}

TEST(RegistryAnswerTest, AnErrorsCodeIsFound) {
  EXPECT_EQ(ParseErrorCode(R"({"errors":[{"code":"BLOB_UNKNOWN","message":"x"},{"code":"B"}]})"),
            "BLOB_UNKNOWN");
  for (const char* body :
       {"", "{", "[]", "7", "{}", R"({"errors":7})", R"({"errors":{"0":{"code":"A"}}})",
        R"({"errors":[]})", R"({"errors":[[1]]})", R"({"errors":[{"code":7}]})",
        R"({"errors":[{"code":"a secret"}]})", "\xff"}) {
    EXPECT_EQ(ParseErrorCode(body), "") << body;
  }
}

TEST(RegistryAnswerTest, ATokenHasALifetime) {
  const auto token = ParseToken(R"({"token":"a.b","access_token":"c","expires_in":300})");
  ASSERT_TRUE(token.ok());
  EXPECT_EQ(token->token, "a.b");
  EXPECT_EQ(token->lifetime, std::chrono::seconds(300));
  EXPECT_EQ(ParseToken(R"({"access_token":"c"})")->token, "c");
  EXPECT_EQ(ParseToken(R"({"token":"c"})")->lifetime, std::chrono::seconds(60));
  EXPECT_EQ(ParseToken(R"({"token":"c","expires_in":-1})")->lifetime, std::chrono::seconds(60));
  EXPECT_EQ(ParseToken(R"({"token":"c","expires_in":1e300})")->lifetime, std::chrono::hours(24));
  for (const char* body : {"", "[]", "{}", R"({"token":7})", R"({"token":""})", "\xff"}) {
    EXPECT_EQ(ParseToken(body).status().error(), EPROTO) << body;
    EXPECT_EQ(ParseToken(body).status().message(), "answers without a token") << body;
  }
}

TEST(RegistryAnswerTest, ATokenWithABadByteIsCalledBadAndIsNotShown) {
  for (const char* body :
       {R"({"token":"a\r\nX: y"})", R"({"token":"a b"})", R"({"token":"\u0000"})",
        R"({"token":"\u007f"})", R"({"access_token":"\u00e9"})"}) {
    const cachecore::Status status = ParseToken(body).status();
    EXPECT_EQ(status.error(), EPROTO) << body;
    EXPECT_EQ(status.message(), "answers with a bad token: it has a byte that no header may have");
  }
}

}  // namespace
}  // namespace fetcher
