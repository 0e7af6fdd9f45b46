#include "host/registries/skopeo.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <string>

#include "cachecore/system/files.h"
#include "tests/host/instance/temporary_directory.h"

namespace host {
namespace {

using cachecore::Deadline;
using cachecore::WriteFileAtomically;

// A program named skopeo on a $PATH of its own.
class SkopeoTest : public testing::Test {
 protected:
  void SetUp() override { setenv("PATH", directory_.path().c_str(), 1); }
  void TearDown() override { setenv("PATH", path_before_.c_str(), 1); }

  void Install(const std::string& script) {
    ASSERT_TRUE(WriteFileAtomically(directory_ / "skopeo", "#!/bin/sh\n" + script, 0755).ok());
  }

  const std::string path_before_ = std::getenv("PATH");
  TemporaryDirectory directory_;
};

TEST_F(SkopeoTest, ItsOutputIsCompleteAndSeparateFromItsMessages) {
  Install(
      "echo words >&2; printf 'a\\0b'; i=0; while [ $i -lt 3000 ]; do printf '%0100d' 0; "
      "i=$((i+1)); done");
  const auto skopeo = Skopeo::Make({});
  ASSERT_TRUE(skopeo.ok());
  const auto output = (*skopeo)->Run({"inspect"}, Deadline(std::chrono::seconds(60)));
  ASSERT_TRUE(output.ok()) << output.status().message();
  EXPECT_EQ(output->size(), 300003u);
  EXPECT_EQ(output->substr(0, 3), std::string("a\0b", 3));
}

TEST_F(SkopeoTest, ItsRefusalIsPutIntoASentence) {
  Install(
      "echo 'time=\"now\" level=fatal msg=\"Error parsing image name \\\"docker://h/a:v\\\": "
      "reading manifest v in h/a: manifest unknown: manifest unknown\"' >&2; exit 1");
  const auto skopeo = Skopeo::Make({});
  const auto output = (*skopeo)->Run({"inspect"}, Deadline(std::chrono::seconds(60)));
  EXPECT_EQ(output.status().error(), ENOENT);
  EXPECT_EQ(output.status().message(),
            "reading manifest v in h/a: manifest unknown: manifest unknown");
}

TEST_F(SkopeoTest, AQueryIsNotRepeated) {
  EXPECT_EQ(SkopeoSentence("msg=\"Get \\\"https://h/v2/?sig=secret\\\": no\"\n"),
            "Get \"https://h/v2/\": no");
}

TEST_F(SkopeoTest, OfManyWordsTheLastAreTaken) {
  const std::string sentence = SkopeoSentence(std::string(1 << 20, '?') + "msg=\"no\"\n");
  EXPECT_EQ(sentence, "no");
  EXPECT_LE(SkopeoSentence(std::string(1 << 20, 'x')).size(), 4096u);
}

TEST_F(SkopeoTest, CredentialsAndCertificatesAreNamedNotGiven) {
  Install("");
  RegistryAccess access;
  access.auth_file = "/x/auth.json";
  access.ca_file = "/x/ca.pem";
  const auto skopeo = Skopeo::Make(access);
  ASSERT_TRUE(skopeo.ok());
  const std::vector<std::string> flags = (*skopeo)->AccessFlags("dest-");
  ASSERT_EQ(flags.size(), 2u);
  EXPECT_EQ(flags[0], "--dest-authfile=/x/auth.json");
  EXPECT_TRUE(flags[1].starts_with("--dest-cert-dir=/")) << flags[1];
  access = {};
  access.plain_http = true;
  EXPECT_EQ((*Skopeo::Make(access))->AccessFlags(""),
            (std::vector<std::string>{"--no-creds", "--tls-verify=false"}));
}

TEST_F(SkopeoTest, OneThatHangsIsKilledAtTheDeadline) {
  Install("exec /bin/sleep 1000");
  const auto skopeo = Skopeo::Make({});
  const auto output = (*skopeo)->Run({"inspect"}, Deadline(std::chrono::milliseconds(200)));
  EXPECT_EQ(output.status().error(), ETIMEDOUT);
}

}  // namespace
}  // namespace host
