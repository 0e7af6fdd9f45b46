#include "host/supervisor/log_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "tests/host/instance/temporary_directory.h"

namespace host {
namespace {

class LogFileTest : public testing::Test {
 protected:
  std::string Path(const std::string& name) const { return directory_.path() + "/" + name; }
  static std::string ReadAll(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  TemporaryDirectory directory_;
};

TEST_F(LogFileTest, OneThatIsLargerIsCopiedAndEmptiedUnderItsWriter) {
  std::ofstream writer(Path("log"), std::ios::app);
  const LogFile log(Path("log"), 10);
  writer << "0123456789" << std::flush;
  log.Limit();
  EXPECT_EQ(ReadAll(Path("log")), "0123456789");
  writer << "a" << std::flush;
  log.Limit();
  EXPECT_EQ(ReadAll(Path("log")), "");
  EXPECT_EQ(ReadAll(Path("log.1")), "0123456789a");
  writer << "after" << std::flush;
  EXPECT_EQ(ReadAll(Path("log")), "after");
}

TEST_F(LogFileTest, OfOneThatIsFarLargerTheEndIsKept) {
  std::ofstream(Path("log")) << std::string(1000, 'x') << "0123456789";
  LogFile(Path("log"), 10).Limit();
  EXPECT_EQ(ReadAll(Path("log")), "");
  EXPECT_EQ(ReadAll(Path("log.1")), "0123456789");
}

TEST_F(LogFileTest, OneThatCannotBeCopiedIsEmptied) {
  std::ofstream(Path("log")) << "0123456789a";
  std::filesystem::create_directory(Path("log.1"));
  LogFile(Path("log"), 10).Limit();
  EXPECT_EQ(ReadAll(Path("log")), "");
}

TEST_F(LogFileTest, WhatIsNotThereIsNotMade) {
  LogFile(Path("log"), 10).Limit();
  LogFile().Limit();
  EXPECT_FALSE(std::filesystem::exists(Path("log")));
}

}  // namespace
}  // namespace host
