#include "fusefs/inject/client_directory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>

#include "tests/cachecore/base/no_threads.h"

namespace fusefs {
namespace {

constexpr std::chrono::seconds kPatience(30);

TEST(ClientDirectoryTest, WithoutAThreadItIsEagainWithTheCureAndTheNextOneIsOpened) {
  {
    const cachecore::NoThreads none;
    const auto opened = OpenDirectoryOf(getpid(), "/", kPatience);
    EXPECT_EQ(opened.status().error(), EAGAIN);
    EXPECT_NE(opened.status().message().find("TasksMax"), std::string::npos);
  }
  EXPECT_TRUE(OpenDirectoryOf(getpid(), "/", kPatience).ok());
}

}  // namespace
}  // namespace fusefs
