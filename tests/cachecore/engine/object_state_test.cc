#include "cachecore/engine/object_state.h"

#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <utility>
#include <vector>

namespace cachecore {
namespace {

using enum ObjectState;
using enum ObjectEvent;

constexpr ObjectState kStates[] = {kClose, kOpen, kReopening, kDropping};
constexpr ObjectEvent kEvents[] = {kDelivered, kOpened, kRefused, kClosed, kNeeded, kDropped};

// Written out a second time on purpose: this is what the kernel's mode does, state by state.
const std::map<std::pair<ObjectState, ObjectEvent>, ObjectState> kExpected = {
    {{kClose, kDelivered}, kClose},
    {{kClose, kOpened}, kOpen},
    {{kClose, kRefused}, kClose},
    {{kClose, kClosed}, kClose},
    {{kClose, kNeeded}, kReopening},
    {{kClose, kDropped}, kDropping},
    {{kOpen, kClosed}, kClose},
    {{kOpen, kDropped}, kDropping},
    {{kReopening, kDelivered}, kReopening},
    {{kReopening, kOpened}, kOpen},
    {{kReopening, kRefused}, kClose},
    {{kReopening, kClosed}, kClose},
    {{kReopening, kDropped}, kDropping},
};

TEST(ObjectStateTest, EveryPairOfStateAndEventGoesWhereTheKernelsWent) {
  for (const ObjectState state : kStates) {
    for (const ObjectEvent event : kEvents) {
      const auto expected = kExpected.find({state, event});
      const std::optional<ObjectState> next = NextState(state, event);
      SCOPED_TRACE(std::string(Name(state)) + " x " + Name(event));
      if (expected == kExpected.end()) {
        EXPECT_EQ(next, std::nullopt);
      } else {
        EXPECT_EQ(next, expected->second);
      }
    }
  }
}

TEST(ObjectStateTest, TheTestKnowsEveryStateAndEventOfTheTable) {
  size_t states = 0;
  size_t events = 0;
  size_t transitions = 0;
#define HOLDFAST_STATE(name, prose) ++states;
#define HOLDFAST_EVENT(name, prose) ++events;
#define HOLDFAST_TRANSITION(from, on, to) ++transitions;
#include "cachecore/engine/object_state.def"
  EXPECT_EQ(states, std::size(kStates));
  EXPECT_EQ(events, std::size(kEvents));
  EXPECT_EQ(transitions, kExpected.size());
}

TEST(ObjectStateTest, NothingLeavesDropping) {
  for (const ObjectEvent event : kEvents) EXPECT_EQ(NextState(kDropping, event), std::nullopt);
}

}  // namespace
}  // namespace cachecore
