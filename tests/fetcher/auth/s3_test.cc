// The pure parts of S3: names, keys, error documents; and programs that print credentials.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <string>

#include "cachecore/environment/secret_environment.h"
#include "fetcher/auth/aws_profile.h"
#include "fetcher/auth/https_credentials.h"
#include "fetcher/auth/s3_credentials.h"
#include "fetcher/origins/s3_backend.h"
#include "fetcher/transfer/child_output.h"

namespace fetcher {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(S3BaseUrlTest, PutsTheBucketIntoTheHostOrThePath) {
  S3Options options;
  options.region = "eu-central-1";
  EXPECT_EQ(S3BaseUrl("s3://bucket/a/", options),
            "https://bucket.s3.eu-central-1.amazonaws.com/a/");
  EXPECT_EQ(S3BaseUrl("s3://with.dot/", options),
            "https://s3.eu-central-1.amazonaws.com/with.dot/");
  options.endpoint = "http://store.example:9000";
  EXPECT_EQ(S3BaseUrl("s3://bucket/a/b/", options), "http://bucket.store.example:9000/a/b/");
  options.path_style = true;
  EXPECT_EQ(S3BaseUrl("s3://bucket/a%20b/", options), "http://store.example:9000/bucket/a%20b/");
}

TEST(S3BaseUrlTest, KeysAreSentAsTheyAreSigned) {
  EXPECT_EQ(S3Encode("plain-._~"), "plain-._~");
  EXPECT_EQ(S3Encode("a+(b)%2bc%7e"), "a%2B%28b%29%2Bc~");
  EXPECT_EQ(S3Encode("%c3%A4"), "%C3%A4");
}

Failure Explained(const std::string& xml) {
  return ExplainS3Failure(xml, {Failure::Kind::kRefused, EIO, "u: 400 Bad Request", {}});
}

TEST(S3ErrorTest, TheCodeSaysWhatIsWrong) {
  const std::string skewed = "<?xml?><Error><Code>RequestTimeTooSkewed</Code></Error>";
  EXPECT_EQ(Explained(skewed).cause,
            "u: 400 Bad Request: RequestTimeTooSkewed (this machine's clock is wrong; set it)");
  EXPECT_EQ(Explained(skewed).kind, Failure::Kind::kRetry);
  EXPECT_EQ(Explained("<Error><Code>NoSuchKey</Code></Error>").error, ENOENT);
  EXPECT_EQ(Explained("<Error><Code>AccessDenied</Code></Error>").error, EACCES);
  EXPECT_THAT(Explained("<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-3</Region>"
                        "</Error>")
                  .cause,
              HasSubstr("the bucket is in another region: --s3-region=eu-west-3"));
  EXPECT_EQ(Explained("<Error><Code>SlowDown</Code></Error>").cause,
            "u: 400 Bad Request: SlowDown");
}

TEST(S3ErrorTest, WhatIsNoCodeIsNotShown) {
  for (const char* xml : {"", "<Code>", "<Code></Code>", "<Code>a secret</Code>", "<html>"}) {
    EXPECT_EQ(Explained(xml).cause, "u: 400 Bad Request") << xml;
  }
}

TEST(AwsProfileTest, TheLinesOfOneSectionCount) {
  const std::string text =
      "# comment\n[default]\na = 1\n; b = 2\ns3 =\n  a = nested\n[profile x]\r\na=3 = 4\r\n";
  EXPECT_EQ(ParseAwsProfile(text, "default"), (AwsProfile{{"a", "1"}, {"s3", ""}}));
  EXPECT_EQ(ParseAwsProfile(text, "profile x"), (AwsProfile{{"a", "3 = 4"}}));
  EXPECT_TRUE(ParseAwsProfile(text, "none").empty());
}

TEST(AwsProfileTest, CommandsAreSplitAtBlanksThatAreNotQuoted) {
  EXPECT_THAT(*SplitCommand(" a  'b c' \"d 'e\"f \t g"), ElementsAre("a", "b c", "d 'ef", "g"));
  EXPECT_THAT(*SplitCommand("a ''"), ElementsAre("a", ""));
  EXPECT_EQ(SplitCommand("a 'b").status().message(), "a quote does not end");
  EXPECT_EQ(SplitCommand("  ").status().message(), "there is no command");
}

TEST(ProcessCredentialsTest, KeysAndTheirLifetimeAreTaken) {
  const auto keys = ParseProcessCredentials(
      R"({"Version":1,"AccessKeyId":"A","SecretAccessKey":"S","SessionToken":"T",)"
      R"("Expiration":"1970-01-01T01:00:10.5+01:00"})",
      4);
  ASSERT_TRUE(keys.ok()) << keys.status().message();
  EXPECT_EQ(keys->access_key + keys->secret_key + keys->session_token, "AST");
  EXPECT_EQ(keys->lifetime, seconds(6));
  const auto lasting =
      ParseProcessCredentials(R"({"Version":1,"AccessKeyId":"A","SecretAccessKey":"S"})", 4);
  EXPECT_EQ(lasting->lifetime, std::nullopt);
}

TEST(ProcessCredentialsTest, ATimeThatIsFarOffIsALongLife) {
  const auto lifetime = [](const std::string& expires, int64_t now) {
    return ParseProcessCredentials(R"({"Version":1,"AccessKeyId":"A","SecretAccessKey":"S",)"
                                   R"("Expiration":")" +
                                       expires + "\"}",
                                   now)
        ->lifetime;
  };
  EXPECT_GE(lifetime("9999-12-31T23:59:59Z", 1'800'000'000), std::chrono::hours(24));
  EXPECT_LE(lifetime("0001-01-01T00:00:00Z", 1'800'000'000), seconds(0));
}

TEST(ProcessCredentialsTest, WhatIsWrongIsSaidWithoutASecret) {
  const auto error = [](const std::string& text) {
    return ParseProcessCredentials(text, 0).status().message();
  };
  EXPECT_EQ(error("secret"), "it printed no JSON object");
  EXPECT_EQ(error(R"({"Version":2})"), "it printed an object whose Version is not 1");
  EXPECT_EQ(error(R"({"Version":1,"AccessKeyId":"A"})"),
            "it printed no AccessKeyId or no SecretAccessKey");
  EXPECT_EQ(error(R"({"Version":1,"AccessKeyId":"A","SecretAccessKey":"S","Expiration":"soon"})"),
            "it printed an Expiration that is no time");
}

TEST(HeaderLinesTest, NamesAndValuesAreTakenAndOddLinesNamed) {
  EXPECT_THAT(*ParseHeaderLines("# a\r\nA: b\r\n\nC:d"), ElementsAre("A: b", "C:d"));
  EXPECT_EQ(ParseHeaderLines("A: b\nsecret").status().message(), "line 2 is not \"Name: value\"");
  EXPECT_EQ(ParseHeaderLines("A b: c").status().message(), "line 1 is not \"Name: value\"");
  EXPECT_EQ(ParseHeaderLines("A: \x01").status().message(), "line 1 has a control character");
  EXPECT_EQ(ParseHeaderLines("A:").status().message(), "line 1 has no value");
  EXPECT_EQ(ParseHeaderLines("If-Range: x").status().message(),
            "line 1 sets if-range, which the fetcher does itself");
}

cachecore::Result<std::string> RunShell(const std::string& script, const std::string& input = "",
                                        Duration limit = seconds(30)) {
  const Cancel cancel;
  return RunForOutput({"sh", "-c", script}, input, limit, cancel);
}

TEST(ChildOutputTest, WhatAProgramPrintsIsGiven) {
  EXPECT_EQ(*RunShell("read line; echo \"<$line>\"; echo noise >&2", "question\n"), "<question>\n");
}

TEST(ChildOutputTest, AProgramGetsPipesAsInAShell) {
  EXPECT_EQ(
      *RunShell("test -p /dev/stdin && test -p /dev/stdout && cat /dev/stdin >/dev/stdout", "q"),
      "q");
  EXPECT_EQ(RunShell("true", std::string(1 << 20, 'x')).status().error(), EMSGSIZE);
}

TEST(ChildOutputTest, HowItFailedIsSaid) {
  EXPECT_EQ(RunShell("echo secret; exit 7").status().message(), "sh ended with exit code 7");
  EXPECT_EQ(RunShell("kill -9 $$").status().message(), "sh was killed by signal 9");
  EXPECT_EQ(RunShell("head -c 70000 /dev/zero").status().error(), E2BIG);
  EXPECT_EQ(RunShell("exec sleep 60", "", seconds(1)).status().message(),
            "sh did not end within 1 s");
  EXPECT_EQ(RunShell("exec >&-; exec sleep 60", "", seconds(1)).status().error(), ETIMEDOUT);
  const Cancel cancel;
  EXPECT_EQ(RunForOutput({"/nowhere/x"}, "", seconds(1), cancel).status().error(), ENOENT);
}

TEST(ChildOutputTest, OneThatIsCancelledEndsAtOnceWithWhatItHasStarted) {
  Cancel cancel;
  cancel.Set();
  EXPECT_EQ(RunForOutput({"sh", "-c", "sleep 60 & wait"}, "", seconds(30), cancel).status().error(),
            ECANCELED);
}

TEST(SecretEnvironmentTest, IsTakenOnceAndReadBackFromAMemoryFile) {
  setenv("AWS_SECRET_ACCESS_KEY", "hidden", 1);
  const char* place = getenv("AWS_SECRET_ACCESS_KEY");
  EXPECT_TRUE(cachecore::SecretEnvironment::IsSet());
  const auto taken = cachecore::SecretEnvironment::Take();
  EXPECT_EQ(std::string(place), "");
  EXPECT_FALSE(cachecore::SecretEnvironment::IsSet());
  const auto file = taken.Store();
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_LT(write(file->get(), "x", 1), 0);
  const auto loaded = cachecore::SecretEnvironment::Load(file->get());
  EXPECT_EQ(loaded->Get("AWS_SECRET_ACCESS_KEY"), "hidden");
  EXPECT_EQ(loaded->Get("AWS_SESSION_TOKEN"), "");
}

TEST(SecretEnvironmentTest, AProxyWithAUserIsTakenAndSetAgain) {
  setenv("HTTPS_PROXY", "http://u:hidden@proxy.example:1", 1);
  setenv("http_proxy", "http://proxy.example:1", 1);
  const char* place = getenv("HTTPS_PROXY");
  const auto taken = cachecore::SecretEnvironment::Take();
  EXPECT_EQ(std::string(place), "");
  EXPECT_EQ(getenv("HTTPS_PROXY"), nullptr);
  EXPECT_STREQ(getenv("http_proxy"), "http://proxy.example:1");
  taken.SetProxies();
  EXPECT_STREQ(getenv("HTTPS_PROXY"), "http://u:hidden@proxy.example:1");
  unsetenv("HTTPS_PROXY");
  unsetenv("http_proxy");
}

}  // namespace
}  // namespace fetcher
