// A full disk and a daemon that serves what cannot be kept.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include "tests/fetcher/engine/fetcher_fixture.h"

namespace fetcher {
namespace {

using testing::Contains;
using testing::Not;
using testing::StartsWith;
namespace wire = cachecore::wire;

constexpr uint64_t kPage = 64 << 10;

class FetcherThroughTest : public FetcherTest {
 protected:
  void StartThrough() {
    SetSource({origin_.url()});
    Launch();
    daemon_.Accept(Hello(0, wire::kProtocolVersion, kFakeCaps | wire::kCapThrough));
  }
  // Opens an object whose disk is full.
  void OpenFull(uint32_t msg, uint32_t object) {
    const cachecore::UniqueFd full(open("/dev/full", O_WRONLY | O_CLOEXEC));
    daemon_.Send(wire::OpenMessage{{msg}, {object}, "v", "x", -1, ""}, full.get());
    ASSERT_EQ(daemon_.LinesUntil("copen").back(),
              "copen " + std::to_string(msg) + "," + std::to_string(body_.size()));
  }
  std::string BytesOf(const cachecore::UniqueFd& file, uint64_t offset, uint64_t length) {
    std::string bytes(length, '\0');
    const ssize_t got = pread(file.get(), bytes.data(), length, static_cast<off_t>(offset));
    bytes.resize(got < 0 ? 0 : static_cast<size_t>(got));
    return bytes;
  }

  ScriptedOrigin origin_{body_};
};

TEST_F(FetcherThroughTest, AReadThatFindsNoRoomIsBroughtInASealedFile) {
  StartThrough();
  OpenFull(0, 1);
  daemon_.Read(1, 1, kPage, kPage);
  const auto lines = daemon_.LinesUntil("through");
  EXPECT_EQ(lines.front(), "full 1");  // Before the causes, whose answers it changes.
  EXPECT_THAT(lines, Contains("cause 1,write to /dev/full: No space left on device"));
  EXPECT_EQ(lines.back(), "through 1,1,65536,65536");
  ASSERT_EQ(daemon_.files().size(), 1u);
  const cachecore::UniqueFd& file = daemon_.files()[0];
  EXPECT_EQ(BytesOf(file, kPage, kPage), body_.substr(kPage, kPage));
  const int seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
  EXPECT_EQ(fcntl(file.get(), F_GET_SEALS) & seals, seals);
}

TEST_F(FetcherThroughTest, ReadsOfAnObjectAreBroughtOneAfterTheOther) {
  StartThrough();
  OpenFull(0, 1);
  for (uint32_t i = 0; i < 4; ++i) daemon_.Read(10 + i, 1, i * kPage, kPage);
  for (uint32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(daemon_.LinesUntil("through").back(),
              "through 1," + std::to_string(10 + i) + "," + std::to_string(i * kPage) + ",65536");
    ASSERT_EQ(daemon_.files().size(), i + 1);
    EXPECT_EQ(BytesOf(daemon_.files()[i], i * kPage, kPage), body_.substr(i * kPage, kPage));
  }
}

TEST_F(FetcherThroughTest, ManyObjectsWithoutRoomAreAllServed) {
  StartThrough();
  for (uint32_t i = 0; i < 24; ++i) OpenFull(i, 1 + i);
  for (uint32_t i = 0; i < 24; ++i) daemon_.Read(100 + i, 1 + i, 0, kPage);
  for (uint32_t i = 0; i < 24; ++i) daemon_.LinesUntil("through");
  EXPECT_EQ(daemon_.files().size(), 24u);
}

TEST_F(FetcherThroughTest, AReadWhoseBytesAreRefusedIsNotLost) {
  StartThrough();
  OpenFull(0, 1);
  daemon_.Refuse("through", EINVAL);
  daemon_.Read(1, 1, 0, kPage);
  daemon_.LinesUntil("through");
  daemon_.Refuse("through", 0);
  EXPECT_EQ(daemon_.LinesUntil("through").back(), "through 1,1,0,65536");
}

TEST_F(FetcherThroughTest, AnOriginThatFailsMeanwhileIsAskedAgain) {
  StartThrough();
  OpenFull(0, 1);
  origin_.Then({});  // What finds no room.
  origin_.Then({.short_by = 30'000});
  origin_.Then({.status = 502});
  daemon_.Read(1, 1, 0, kPage);
  EXPECT_EQ(daemon_.LinesUntil("through").back(), "through 1,1,0,65536");
  EXPECT_EQ(BytesOf(daemon_.files().at(0), 0, kPage), body_.substr(0, kPage));
}

TEST_F(FetcherThroughTest, AReadThatIsTooLargeForMemoryWaitsForRoom) {
  body_ = RandomBytes(5 << 20);
  origin_.Replace(body_, "\"one\"");
  StartThrough();
  OpenFull(0, 1);
  daemon_.Read(1, 1, 0, body_.size());
  EXPECT_EQ(daemon_.LinesUntil("cause").back(),
            "cause 1,write to /dev/full: No space left on device");
  daemon_.Read(2, 1, 0, kPage);
  const auto lines = daemon_.LinesUntil("cause 2");
  EXPECT_THAT(lines, Not(Contains(StartsWith("through"))));
}

}  // namespace
}  // namespace fetcher
