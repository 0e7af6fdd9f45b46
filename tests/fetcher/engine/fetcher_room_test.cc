// A full disk: what waits for room is fetched once there is some, and the spell is logged once.

#include <fcntl.h>
#include <gmock/gmock.h>

#include "tests/cachecore/base/captured_log.h"
#include "tests/fetcher/engine/fetcher_fixture.h"

namespace fetcher {
namespace {

namespace wire = cachecore::wire;

constexpr uint64_t kPage = 64 << 10;

class FetcherRoomTest : public FetcherTest {
 protected:
  void StartWithCaps(uint32_t caps) {
    SetSource({origin_.url()});
    Launch();
    daemon_.Accept(Hello(0, wire::kProtocolVersion, caps));
  }
  // Opens an object whose disk is full.  /dev/full has no fallocate, so that the fetcher finds out by
  // fetching again whether there is room.
  void OpenFull(uint32_t msg, uint32_t object) {
    const cachecore::UniqueFd full(open("/dev/full", O_WRONLY | O_CLOEXEC));
    daemon_.Send(wire::OpenMessage{{msg}, {object}, "v", "x", -1, ""}, full.get());
    daemon_.LinesUntil("copen");
  }
  void WaitForRequests(size_t count) {
    daemon_.WaitUntil([&] { return origin_.requests().size() >= count; });
  }

  ScriptedOrigin origin_{body_};
  cachecore::CapturedLog log_;
};

TEST_F(FetcherRoomTest, RoomIsLookedForAfterATransferThatFindsNoneLaterThanAnother) {
  StartWithCaps(kFakeCaps);
  OpenFull(0, 1);
  origin_.Then({});
  origin_.Then({.body_delay_ms = 300});
  daemon_.Read(1, 1, 0, kPage);
  daemon_.Read(2, 1, 2 * kPage, kPage);
  WaitForRequests(1 + 2);
  WaitForRequests(1 + 2 + 2);
}

TEST_F(FetcherRoomTest, AReadThatIsWithdrawnMeanwhileIsForgotten) {
  options_.fetch.tell_again = std::chrono::milliseconds(1);
  StartWithCaps(kFakeCaps);
  OpenFull(0, 1);
  daemon_.Read(1, 1, 0, kPage);
  daemon_.LinesUntil("cause 1,");
  daemon_.Refuse("cause 1,", EINVAL);
  daemon_.LinesUntil("cause 1,");
  daemon_.Read(2, 1, 2 * kPage, kPage);
  daemon_.LinesUntil("cause 2,");
  const size_t before = origin_.requests().size();
  WaitForRequests(before + 2);
  const auto requests = origin_.requests();
  for (size_t i = before; i < requests.size(); ++i) {
    EXPECT_EQ(requests[i].range, "bytes=131072-196607");
  }
}

TEST_F(FetcherRoomTest, ASpellIsLoggedOnceHoweverOftenRoomIsLookedFor) {
  StartWithCaps(kFakeCaps);
  OpenFull(0, 1);
  daemon_.Read(1, 1, 0, kPage);
  WaitForRequests(1 + 3);
  EXPECT_EQ(log_.Count("No space left on device"), 1);
  EXPECT_EQ(log_.Count("there is room again"), 0);
}

TEST_F(FetcherRoomTest, ASpellEndsAlsoForAnObjectOfWhichNothingIsWanted) {
  options_.fetch.tell_again = std::chrono::milliseconds(1);
  StartWithCaps(kFakeCaps);
  OpenFull(0, 1);
  daemon_.Refuse("cause 1,", EINVAL);
  daemon_.Read(1, 1, 0, kPage);
  daemon_.LinesUntil("cause 1,");
  daemon_.WaitUntil([&] { return log_.Count("there is room again") == 1; });
}

TEST_F(FetcherRoomTest, WhatWasToBeServedFromMemoryAndIsWithdrawnTakesNoPlaceThere) {
  StartWithCaps(kFakeCaps | wire::kCapThrough);
  for (uint32_t i = 1; i <= ThroughRead::kMost; ++i) {
    OpenFull(100 + i, i);
    daemon_.Refuse("cause " + std::to_string(i) + ",http", EINVAL);
    // Also what finds no room: whether a request does depends on when room is looked for.
    origin_.Always(Misbehaviour{.short_by = 30'000});
    daemon_.Read(i, i, 0, kPage);
    daemon_.LinesUntil("cause " + std::to_string(i) + ",http");
    origin_.Always({});
  }
  OpenFull(200, 20);
  daemon_.Read(20, 20, 0, kPage);
  daemon_.WaitUntil([&] { return daemon_.files().size() == 1; });
  EXPECT_EQ(daemon_.LinesUntil("through").back(), "through 20,20,0,65536");
}

}  // namespace
}  // namespace fetcher
