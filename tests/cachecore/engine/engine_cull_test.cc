// What happens to a range while it is culled.

#include <gtest/gtest.h>

#include <vector>

#include "tests/cachecore/engine/engine_rig.h"

namespace cachecore {
namespace {

constexpr uint64_t kSize = 1 << 20;

TEST(EngineCullTest, WhatIsFoundWrongWhileItIsCulledStaysAbsentIfTheCullIsCancelled) {
  EngineRig rig(EngineOptions{});
  Object* object = rig.AddKnown(16, kSize);
  rig.Fill(object, {0, 65536});
  ASSERT_TRUE(rig.BeginCull(object, {0, 65536}));
  rig.engine.RemoveWrongPresence(object, {4096, 8192});
  rig.CancelCull(object);
  EXPECT_EQ(object->presence.Gaps({0, 65536}), (std::vector<ByteRange>{{4096, 8192}}));
  EXPECT_EQ(rig.engine.Undurable(*object), (std::vector<ByteRange>{{0, 4096}, {8192, 65536}}));
}

TEST(EngineCullTest, WhatASyncMayLoseIsKnownWhileItIsCulled) {
  EngineRig rig(EngineOptions{});
  Object* object = rig.AddKnown(16, kSize);
  rig.Fill(object, {0, 65536});
  ASSERT_TRUE(rig.BeginCull(object, {0, 8192}));
  EXPECT_EQ(rig.engine.Undurable(*object), (std::vector<ByteRange>{{0, 65536}}));
  for (const ByteRange lost : rig.engine.Undurable(*object)) {
    rig.engine.RemovePresence(object, lost);
  }
  rig.CancelCull(object);
  EXPECT_EQ(object->presence.present_bytes(), 0u);
  EXPECT_TRUE(rig.engine.Undurable(*object).empty());
}

}  // namespace
}  // namespace cachecore
