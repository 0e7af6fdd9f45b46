#include "fusefs/service/watchdog.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

namespace fusefs {
namespace {

using cachecore::Duration;
using std::chrono::milliseconds;
using std::chrono::seconds;

class HandClock : public cachecore::Clock {
 public:
  Duration Now() const override { return now; }
  Duration now{0};
};

class HealthTest : public testing::Test {
 protected:
  // Whether all is well after so long.
  bool WellAfter(Duration time) {
    clock_.now += time;
    return health_.Look().ok();
  }

  HandClock clock_;
  Health health_{seconds(10), clock_};
  WorkMark mark_;
};

TEST_F(HealthTest, AThreadThatWaitsForWorkIsWellForEver) {
  health_.Watch("it", &mark_);
  EXPECT_TRUE(WellAfter(seconds(11)));
  mark_.Begin();
  mark_.End();
  EXPECT_TRUE(WellAfter(seconds(1)));
  EXPECT_TRUE(WellAfter(seconds(100)));
}

TEST_F(HealthTest, OnePieceOfWorkMayTakeAsLongAsTheLimitAndNoLonger) {
  health_.Watch("it", &mark_);
  mark_.Begin();
  EXPECT_TRUE(WellAfter(seconds(1)));  // Where it is first seen.
  EXPECT_TRUE(WellAfter(seconds(10)));
  clock_.now += milliseconds(1);
  EXPECT_EQ(health_.Look().message(), "it has been at one thing for 10001 ms");
  mark_.End();
  EXPECT_TRUE(WellAfter(seconds(1)));
}

TEST_F(HealthTest, ManyPiecesOfWorkMayTakeAsLongAsTheyLike) {
  health_.Watch("it", &mark_);
  for (int i = 0; i < 50; ++i) {
    mark_.Begin();
    EXPECT_TRUE(WellAfter(seconds(9)));
    mark_.End();
  }
}

TEST_F(HealthTest, WhatMustTickIsStuckWhenItRests) {
  health_.WatchTicks("it", &mark_);
  mark_.Begin();
  mark_.End();
  EXPECT_TRUE(WellAfter(seconds(1)));
  EXPECT_TRUE(WellAfter(seconds(10)));
  EXPECT_FALSE(WellAfter(seconds(1)));
}

TEST_F(HealthTest, OneStuckAmongMovingOnesIsNamed) {
  WorkMark stuck;
  health_.Watch("the first", &mark_);
  health_.Watch("the second", &stuck);
  health_.Watch("the third", &mark_);
  stuck.Begin();
  EXPECT_TRUE(WellAfter(seconds(1)));
  clock_.now += seconds(11);
  EXPECT_EQ(health_.Look().message(), "the second has been at one thing for 11000 ms");
}

// What the pings wait for, made to happen and waited for by hand.
class Counter {
 public:
  void Add() {
    std::lock_guard<std::mutex> lock(mu_);
    ++count_;
    changed_.notify_all();
  }
  bool Reaches(int count) {
    std::unique_lock<std::mutex> lock(mu_);
    return changed_.wait_for(lock, seconds(20), [&] { return count_ >= count; });
  }
  int count() {
    std::lock_guard<std::mutex> lock(mu_);
    return count_;
  }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  int count_ = 0;
};

TEST(WatchdogTest, PingsWhileAllIsWellAndNotWhileSomethingIsStuck) {
  WorkMark mark;
  Counter looks;
  Counter pings;
  Health health(milliseconds(0), cachecore::Clock::Monotonic());
  health.Watch("it", &mark);
  Watchdog dog(
      std::move(health), milliseconds(1), [&] { looks.Add(); }, [&] { pings.Add(); });
  EXPECT_TRUE(pings.Reaches(5));
  mark.Begin();
  // The first look may have begun before, the second sees the new work for the first time.
  EXPECT_TRUE(looks.Reaches(looks.count() + 4));
  const int before = pings.count();
  EXPECT_TRUE(looks.Reaches(looks.count() + 20));
  EXPECT_EQ(pings.count(), before);
  mark.End();
  EXPECT_TRUE(pings.Reaches(before + 5));
}

TEST(WatchdogTest, AnEngineWhoseLockIsHeldIsNotPingedFor) {
  std::mutex engine;
  Counter pings;
  std::unique_lock<std::mutex> held(engine);
  Watchdog dog(
      Health(seconds(10), cachecore::Clock::Monotonic()), milliseconds(1),
      [&] { std::lock_guard<std::mutex> lock(engine); }, [&] { pings.Add(); });
  EXPECT_EQ(pings.count(), 0);
  held.unlock();
  EXPECT_TRUE(pings.Reaches(1));
}

}  // namespace
}  // namespace fusefs
