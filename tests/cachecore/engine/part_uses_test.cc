#include "cachecore/engine/part_uses.h"

#include <gtest/gtest.h>

#include <vector>

#include "cachecore/values/presence_map.h"
#include "tests/cachecore/engine/engine_rig.h"

namespace cachecore {
namespace {

constexpr uint64_t kFar = PresenceMap::kMaxObjectSize - PartUses::kPartBytes;
constexpr ByteRange kFarBlock{kFar, kFar + kBlockSize};

TEST(PartUsesTest, APartThatIsFarBehindTheOthersCostsNoMore) {
  PartUses uses;
  uses.Note({0, kBlockSize}, std::chrono::seconds(1));
  uses.Note(kFarBlock, std::chrono::seconds(2));
  EXPECT_EQ(uses.LastUse(0), std::chrono::seconds(1));
  EXPECT_EQ(uses.LastUse(1), Duration::zero());
  EXPECT_EQ(uses.LastUse(kFar / PartUses::kPartBytes), std::chrono::seconds(2));
}

TEST(PartUsesTest, ARangeIsNotedInAllItsParts) {
  PartUses uses;
  // Over the border of two leaves.
  const uint64_t border = PresenceLeaf::kBytes;
  uses.Note({border - 1, border + PartUses::kPartBytes + 1}, std::chrono::seconds(1));
  const uint64_t part = border / PartUses::kPartBytes;
  EXPECT_EQ(uses.LastUse(part - 2), Duration::zero());
  EXPECT_EQ(uses.LastUse(part - 1), std::chrono::seconds(1));
  EXPECT_EQ(uses.LastUse(part + 1), std::chrono::seconds(1));
  EXPECT_EQ(uses.LastUse(part + 2), Duration::zero());
}

TEST(PartUsesTest, AFillIsNotedWhereUsesAreWanted) {
  for (const bool notes : {false, true}) {
    EngineOptions options;
    options.notes_uses = notes;
    EngineRig rig(options);
    Object* object = rig.AddKnown(16, PresenceMap::kMaxObjectSize);
    rig.Advance(std::chrono::seconds(5));
    rig.Fill(object, kFarBlock);
    EXPECT_EQ(object->uses.LastUse(kFar / PartUses::kPartBytes) > Duration::zero(), notes);
  }
}

}  // namespace
}  // namespace cachecore
