#include "fusefs/interrupts.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "tests/cachecore/cache_rig.h"

namespace fusefs {
namespace {

using cachecore::CacheRig;
using cachecore::Status;

TEST(InterruptsTest, ALivingProcessIsNotBeingKilledAndOneThatIsGoneIs) {
  EXPECT_FALSE(IsBeingKilled(getpid()));
  const pid_t child = fork();
  if (child == 0) _exit(0);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_TRUE(IsBeingKilled(child));
}

TEST(InterruptsTest, AReaderThatWasSignalledAndLivesGoesOnWaiting) {
  CacheRig rig;
  const auto object = *rig.Acquire(1 << 20);
  Interrupts interrupts(rig.cache.get());
  const uint64_t living = interrupts.Watch(getpid(), /*resent=*/false);
  const uint64_t dead = interrupts.Watch(0, /*resent=*/false);
  std::atomic<int> living_ended{0};
  std::atomic<int> dead_error{0};
  interrupts.SetTicket(living,
                       rig.cache->Read(object.number, {0, 1}, 0,
                                       [&](const Status&, const auto&) { ++living_ended; }));
  interrupts.SetTicket(
      dead, rig.cache->Read(object.number, {0, 1}, 0, [&](const Status& status, const auto&) {
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

TEST(InterruptsTest, AResentReadWhoseReaderIsGoneIsLetGoWithoutAnInterrupt) {
  CacheRig rig;
  const auto object = *rig.Acquire(1 << 20);
  Interrupts interrupts(rig.cache.get());
  const uint64_t watch = interrupts.Watch(0, /*resent=*/true);
  std::atomic<int> error{0};
  interrupts.SetTicket(
      watch, rig.cache->Read(object.number, {0, 1}, 0, [&](const Status& status, const auto&) {
        interrupts.Unwatch(watch);
        error = status.error();
        error.notify_all();
      }));
  error.wait(0);
  EXPECT_EQ(error, EINTR);
}

}  // namespace
}  // namespace fusefs
