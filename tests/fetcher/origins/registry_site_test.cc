// What makes a registry accept requests, with a token service and credential helpers that the test plays.

#include "fetcher/origins/registry_site.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "tests/fetcher/engine/fake_daemon.h"
#include "tests/fetcher/origins/scripted_origin.h"

namespace fetcher {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class RegistryHelperTest : public testing::Test {
 protected:
  RegistryHelperTest() {
    config_.url = "oci://127.0.0.1:" + std::to_string(service_.port()) + "/repo/";
    config_.options.plain_http = true;
    config_.options.auth_file = directory_.dir() + "/auth.json";
    std::ofstream(config_.options.auth_file) << R"({"credsStore":"test"})";
    std::filesystem::permissions(config_.options.auth_file, std::filesystem::perms::owner_read);
    const std::string path = getenv("PATH");
    setenv("PATH", (directory_.dir() + ":" + path).c_str(), 1);
  }

  void WriteHelper(const std::string& script) {
    const std::string path = directory_.dir() + "/docker-credential-test";
    std::ofstream(path) << "#!/bin/sh\n" << script << "\n";
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  }
  cachecore::Result<BroughtCredentials> Bring(const std::string& scheme) {
    Renewal renewal;
    renewal.challenge = scheme + " realm=\"" + service_.url() + "token\",service=\"s\"";
    return BringRegistryCredentials(config_, renewal, Cancel());
  }

  FakeDaemon directory_;  // For its directory.
  ScriptedOrigin service_{R"({"token":"t"})"};
  RegistryConfig config_;
};

TEST_F(RegistryHelperTest, OneThatKnowsNothingLeavesPublicImagesReadable) {
  for (const char* script : {"echo credentials not found in native keychain; exit 1", "echo {}",
                             "exit 0", "kill -9 $$"}) {
    SCOPED_TRACE(script);
    WriteHelper(script);
    const auto brought = Bring("Bearer");
    ASSERT_TRUE(brought.ok()) << brought.status().message();
    EXPECT_THAT(brought->credentials.headers, ElementsAre("Authorization: Bearer t"));
    EXPECT_EQ(service_.requests().back().authorization, "");
  }
}

TEST_F(RegistryHelperTest, OneThatIsNotThereLeavesPublicImagesReadable) {
  EXPECT_TRUE(Bring("Bearer").ok());
}

TEST_F(RegistryHelperTest, ARefusalNamesTheHelperThatGaveNothing) {
  WriteHelper("exit 3");
  service_.Always(Misbehaviour{.status = 401});
  const std::string helper = "; docker-credential-test ended with exit code 3";
  EXPECT_THAT(Bring("Bearer").status().message(),
              HasSubstr("401 Unauthorized to a request without credentials" + helper));
  EXPECT_THAT(Bring("Basic").status().message(), HasSubstr("auth.json has none for it" + helper));
}

}  // namespace
}  // namespace fetcher
