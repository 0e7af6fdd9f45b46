#include "fetcher/transfer/range_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bitset>
#include <random>

#include "tests/cachecore/engine/seed.h"

namespace fetcher {
namespace {

using testing::ElementsAre;

TEST(RangeSetTest, AddMergesWhatItOverlapsAndTouches) {
  RangeSet set;
  set.Add({0, 10});
  set.Add({20, 30});
  set.Add({5, 15});
  EXPECT_THAT(set.Within({0, 100}), ElementsAre(ByteRange{0, 15}, ByteRange{20, 30}));
  set.Add({15, 20});
  EXPECT_THAT(set.Within({0, 100}), ElementsAre(ByteRange{0, 30}));
  EXPECT_EQ(set.byte_count(), 30u);
}

TEST(RangeSetTest, GapsAreWhatIsNotWithin) {
  RangeSet set;
  set.Add({10, 20});
  EXPECT_THAT(set.Gaps({0, 30}), ElementsAre(ByteRange{0, 10}, ByteRange{20, 30}));
  EXPECT_THAT(set.Gaps({12, 18}), ElementsAre());
}

TEST(RangeSetTest, AgreesWithABitmapUnderRandomSteps) {
  constexpr size_t kSize = 200;
  std::mt19937_64 random(TestSeed());
  RangeSet set;
  std::bitset<kSize> model;
  for (int step = 0; step < 100'000; ++step) {
    const uint64_t begin = random() % kSize;
    const uint64_t end = begin + random() % (kSize - begin + 1);
    const bool add = random() % 2 == 0;
    add ? set.Add({begin, end}) : set.Remove({begin, end});
    for (uint64_t i = begin; i < end; ++i) model[i] = add;
    ASSERT_EQ(set.byte_count(), model.count()) << "step " << step;
    const ByteRange window{random() % kSize, kSize};
    std::bitset<kSize> seen;
    uint64_t last_end = 0;
    for (const ByteRange part : set.Within(window)) {
      ASSERT_FALSE(part.empty());
      ASSERT_TRUE(last_end == 0 || part.begin > last_end) << "adjacent parts, step " << step;
      last_end = part.end;
      for (uint64_t i = part.begin; i < part.end; ++i) seen.set(i);
    }
    for (const ByteRange gap : set.Gaps(window)) {
      for (uint64_t i = gap.begin; i < gap.end; ++i) ASSERT_FALSE(seen[i]);
    }
    for (uint64_t i = window.begin; i < kSize; ++i) ASSERT_EQ(seen[i], model[i]) << "step " << step;
  }
}

}  // namespace
}  // namespace fetcher
