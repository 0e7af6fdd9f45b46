#include "fusefs/server/interrupts.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>

#include "tests/cachecore/cache/cache_rig.h"
#include "tests/fusefs/server/gone_pid.h"

namespace fusefs {
namespace {

using cachecore::CacheRig;
using cachecore::Status;

TEST(InterruptsTest, ALivingProcessIsNotBeingKilledAndOneThatIsGoneIs) {
  EXPECT_FALSE(IsBeingKilled(getpid()));
  EXPECT_TRUE(IsBeingKilled(GonePid()));
}

TEST(InterruptsTest, AReaderThatWasSignalledAndLivesGoesOnWaiting) {
  CacheRig rig;
  const auto object = *rig.Acquire(1 << 20);
  Interrupts interrupts(rig.cache.get());
  const uint64_t living = interrupts.Watch(getpid(), /*resent=*/false);
  const uint64_t dead = interrupts.Watch(0, /*resent=*/false);
  std::atomic<int> living_ended{0};
  std::atomic<int> dead_error{0};
  interrupts.SetTicket(
      living,
      rig.cache->Read(object.number, {0, 1}, [&](const Status&, const auto&) { ++living_ended; }));
  interrupts.SetTicket(
      dead, rig.cache->Read(object.number, {0, 1}, [&](const Status& status, const auto&) {
        interrupts.Unwatch(dead);
        dead_error = status.error();
        dead_error.notify_all();
      }));
  interrupts.Interrupt(living);
  interrupts.Interrupt(dead);
  dead_error.wait(0);  // A round has looked at both.
  EXPECT_EQ(dead_error, EINTR);
  EXPECT_EQ(living_ended, 0);
  interrupts.Unwatch(living);
}

TEST(InterruptsTest, ResentReadsOfDeadReadersAreCancelledWithoutAnInterrupt) {
  CacheRig rig;
  const auto object = *rig.Acquire(1 << 20);
  Interrupts interrupts(rig.cache.get());
  // 0: a reader that our pid namespace cannot name, and which may well be alive.
  const uint64_t nameless = interrupts.Watch(0, /*resent=*/true);
  const uint64_t gone = interrupts.Watch(GonePid(), /*resent=*/true);
  std::atomic<int> nameless_error{0};
  std::atomic<int> gone_error{0};
  interrupts.SetTicket(
      nameless, rig.cache->Read(object.number, {0, 1}, [&](const Status& status, const auto&) {
        interrupts.Unwatch(nameless);
        nameless_error = status.error();
        nameless_error.notify_all();
      }));
  interrupts.SetTicket(
      gone, rig.cache->Read(object.number, {0, 1}, [&](const Status& status, const auto&) {
        interrupts.Unwatch(gone);
        gone_error = status.error();
        gone_error.notify_all();
      }));
  gone_error.wait(0);  // A round has looked at both.
  EXPECT_EQ(gone_error, EINTR);
  EXPECT_EQ(nameless_error, 0);
  interrupts.Interrupt(nameless);
  nameless_error.wait(0);
  EXPECT_EQ(nameless_error, EINTR);
}

}  // namespace
}  // namespace fusefs
