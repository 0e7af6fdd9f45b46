// What a sanitizer is for ends the process.  Built only where one is on: a slice of tests that runs
// without its sanitizer would find nothing and pass.

#include <climits>
#include <cstdlib>
#include <memory>
#include <thread>

#include "gtest/gtest.h"

namespace {

class SanitizerTest : public testing::Test {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

#if defined(__SANITIZE_ADDRESS__)

TEST_F(SanitizerTest, AReadBehindAnAllocationEndsTheProcess) {
  volatile int index = 4;
  const auto four = std::make_unique<int[]>(4);
  EXPECT_DEATH(std::exit(four[index]), "heap-buffer-overflow");
}

TEST_F(SanitizerTest, AUseAfterFreeEndsTheProcess) {
  auto owned = std::make_unique<int>(1);
  const int* const dangling = owned.get();
  owned.reset();
  EXPECT_DEATH(std::exit(*dangling), "heap-use-after-free");
}

TEST_F(SanitizerTest, AnOverflowOfASignedNumberEndsTheProcess) {
  volatile int most = INT_MAX;
  EXPECT_DEATH(std::exit(most + 1), "signed integer overflow");
}

#elif defined(__SANITIZE_THREAD__)

TEST_F(SanitizerTest, ADataRaceEndsTheProcess) {
  const auto race = [] {
    int shared = 0;
    std::thread other([&shared] { ++shared; });
    ++shared;
    other.join();
    std::exit(0);
  };
  EXPECT_DEATH(race(), "data race");
}

#else
#error "this test is of the presets asan and tsan"
#endif

}  // namespace
