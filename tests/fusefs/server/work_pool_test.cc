#include "fusefs/server/work_pool.h"

#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "tests/cachecore/base/no_threads.h"

namespace fusefs {
namespace {

TEST(WorkPoolTest, WithoutAThreadTheCallerDoesTheWork) {
  WorkPool pool(2);
  std::thread::id by;
  {
    const cachecore::NoThreads none;
    pool.Post([&by] { by = std::this_thread::get_id(); });
  }
  EXPECT_EQ(by, std::this_thread::get_id());
  std::promise<std::thread::id> later;
  pool.Post([&later] { later.set_value(std::this_thread::get_id()); });
  EXPECT_NE(later.get_future().get(), by);
}

}  // namespace
}  // namespace fusefs
