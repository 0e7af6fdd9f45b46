#include "fetcher/transfer/timers.h"

#include <gtest/gtest.h>

namespace fetcher {
namespace {

using std::chrono::seconds;

TEST(TimersTest, AnObjectThatAsksTimeAndAgainIsHeldOnce) {
  Timers timers;
  for (int i = 0; i < 100'000; ++i) timers.WakeAt({1}, seconds(3600 - i % 1000));
  EXPECT_EQ(timers.size(), 1u);
  EXPECT_EQ(timers.Next(), seconds(2601));
}

TEST(TimersTest, TheyAreDueInOrderAndOnce) {
  Timers timers;
  timers.WakeAt({1}, seconds(3));
  timers.WakeAt({2}, seconds(2));
  timers.WakeAt({3}, seconds(9));
  timers.WakeAt({4}, seconds(1));
  timers.Remove({4});
  timers.Remove({5});
  EXPECT_EQ(timers.TakeDue(seconds(5)), ObjectId{2});
  EXPECT_EQ(timers.TakeDue(seconds(5)), ObjectId{1});
  EXPECT_EQ(timers.TakeDue(seconds(5)), std::nullopt);
  EXPECT_EQ(timers.Next(), seconds(9));
  timers.Clear();
  EXPECT_EQ(timers.Next(), std::nullopt);
}

}  // namespace
}  // namespace fetcher
