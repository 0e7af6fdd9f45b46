// Both services killed a thousand times each: the supervisor stays as it was.

#include <signal.h>

#include <random>

#include "tests/host/supervisor/counting_new.h"
#include "tests/host/supervisor/supervisor_harness.h"

namespace host {
namespace {

using cachecore::UniqueFd;

constexpr int kRounds = 1000;
constexpr int64_t kGrowthKbMax = 256;

using SupervisorKillTest = SupervisorHarness;

TEST_F(SupervisorKillTest, AThousandKillsOfBothCostNoMemoryNoDescriptorAndNoStoredFile) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  SupervisorOptions options = Options({"one", "two"});
  options.services[0].keep_spare = true;  // With its delay: some deaths find one, most do not.
  StartSupervisor(options);
  Life one = NextLife("one"), two = NextLife("two");
  UniqueFd file_one = MemFile("of one"), file_two = MemFile("of two");
  one.NotifyAndWait("FDSTORE=1\nFDNAME=fuse\nFDPOLL=0", {file_one.get()});
  two.NotifyAndWait("FDSTORE=1\nFDNAME=device", {file_two.get()});

  const auto has_spare = [](const auto& status) { return ServiceOf(status, "one")["spare"] != 0; };
  WaitStatus(has_spare);  // Its socket is one of the descriptors that are counted.
  const size_t fds = SettledFds(&one);
  const int64_t rss_kb = StatusKb(supervisor_pid(), "VmRSS");
  const uint64_t allocations = AllocationCount();
  ASSERT_GT(allocations, 0u) << "the counter does not count";

  for (int round = 0; round < kRounds; ++round) {
    Life* first = random() % 2 == 0 ? &one : &two;
    Life* second = first == &one ? &two : &one;
    // Sometimes in the same instant, sometimes the second while the first is being restarted.
    kill(first->pid, SIGKILL);
    if (random() % 2 == 0) {
      ASSERT_TRUE(first->EndsWithin(kDeadlineMs));
    }
    kill(second->pid, SIGKILL);
    one = NextLife("one");
    two = NextLife("two");
    ASSERT_EQ(one.names, "fuse") << "round " << round;
    ASSERT_EQ(two.names, "device") << "round " << round;
    ASSERT_EQ(one.Do("read fuse"), "of one");
    ASSERT_EQ(two.Do("read device"), "of two");
    // Something that comes and goes, in some lives.
    if (round % 10 != 0) continue;
    UniqueFd more = MemFile("more");
    one.NotifyAndWait("FDSTORE=1\nFDNAME=more\nSTATUS=serving", {more.get()});
    one.NotifyAndWait("FDSTOREREMOVE=1\nFDNAME=more");
  }

  WaitStatus([&](const auto& status) {
    return ServiceOf(status, "one")["restarts"] == kRounds &&
           ServiceOf(status, "two")["restarts"] == kRounds && has_spare(status);
  });
  const size_t fds_after = SettledFds(&one);
  const int64_t rss_after_kb = StatusKb(supervisor_pid(), "VmRSS");
  printf(
      "seed %u, %d kills of each: supervisor VmRSS %ld -> %ld KiB, descriptors %zu -> %zu, "
      "allocations since start %lu\n",
      seed, kRounds, rss_kb, rss_after_kb, fds, fds_after, AllocationCount() - allocations);
  EXPECT_LT(rss_after_kb - rss_kb, kGrowthKbMax);
  EXPECT_EQ(fds_after, fds);
  EXPECT_EQ(AllocationCount(), allocations);
}

}  // namespace
}  // namespace host
