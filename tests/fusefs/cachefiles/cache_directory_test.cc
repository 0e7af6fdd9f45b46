#include "fusefs/cachefiles/cache_directory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/resource.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <memory>
#include <string>

#include "fusefs/cachefiles/backing_name.h"
#include "tests/fusefs/cachefiles/device_model.h"

namespace fusefs {
namespace {

using cachecore::Freshness;
using cachecore::ObjectInfo;
using cachecore::Result;
using cachecore::UniqueFd;

constexpr char kCookie[] = "object";

// An object that its program has opened, and whose file has its name.
void MakeObject(World* world) {
  std::promise<bool> opened;
  ASSERT_TRUE(world->cache->Acquire(
      world->volume, kCookie, {}, Freshness::kReplace,
      [&opened](const Result<ObjectInfo>& info) { opened.set_value(info.ok()); }));
  const Result<DeviceMessage> open = world->device->Read(getpid(), SIZE_MAX);
  ASSERT_TRUE(open.ok() && open->kind == DeviceMessage::Kind::kOpen);
  const std::string answer =
      "copen " + std::to_string(open->msg_id.value) + "," + std::to_string(kSize);
  ASSERT_EQ(world->device->Write(getpid(), answer), static_cast<int64_t>(answer.size()));
  ASSERT_TRUE(opened.get_future().get());
  world->bound->Commit({world->volume.key, kCookie});
}

// As after a restart of the daemon: a `cull` may come again before the grants are read.
TEST(CacheDirectoryTest, WhatMayBeUsedIsBusyUntilTheGrantsAreKnown) {
  World world;
  MakeObject(&world);
  const BackingName place = BackingNameOf(world.volume.key, kCookie);
  const std::string cache = world.directory() + "/bound/cache";
  const std::string volume = cache + "/" + place.volume;
  const UniqueFd top(open(cache.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const UniqueFd fan_out(
      open((volume + "/" + place.fan_out).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ASSERT_TRUE(top.valid() && fan_out.valid());
  EXPECT_EQ(world.bound->Cull(fan_out.get(), place.file), -EBUSY);
  EXPECT_EQ(world.bound->Cull(top.get(), place.volume), -EBUSY);
  EXPECT_TRUE(world.bound->IsAnyUsed());

  const auto grants =
      Grants::Open(world.directory() + "/grants", Clock::Monotonic(), /*resumed=*/false);
  ASSERT_TRUE(grants.ok());
  world.bound->SetGrants(grants->get());
  EXPECT_FALSE(world.bound->IsAnyUsed());
  EXPECT_EQ(world.bound->Cull(fan_out.get(), place.file), 0);
  EXPECT_EQ(world.bound->Cull(top.get(), place.volume), 0);
}

// Between the `copen` and the grant, too.
TEST(CacheDirectoryTest, WhatIsBeingAcquiredIsBusy) {
  World world;
  MakeObject(&world);
  const auto grants =
      Grants::Open(world.directory() + "/grants", Clock::Monotonic(), /*resumed=*/false);
  ASSERT_TRUE(grants.ok());
  world.bound->SetGrants(grants->get());
  const GrantName name{world.volume.key, kCookie};
  const BackingName place = BackingNameOf(name.volume, name.object);
  const std::string cache = world.directory() + "/bound/cache";
  const UniqueFd top(open(cache.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const UniqueFd fan_out(open((cache + "/" + place.volume + "/" + place.fan_out).c_str(),
                              O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ASSERT_TRUE(top.valid() && fan_out.valid());
  for (int mounts = 1; mounts <= 2; ++mounts) ASSERT_TRUE(world.bound->Admit(name).ok());
  for (int mounts = 2; mounts > 0; --mounts) {
    EXPECT_EQ(world.bound->InUse(fan_out.get(), place.file), -EBUSY);
    EXPECT_EQ(world.bound->Cull(fan_out.get(), place.file), -EBUSY);
    EXPECT_EQ(world.bound->Cull(top.get(), place.volume), -EBUSY);
    world.bound->Admitted(name);
  }
  EXPECT_EQ(world.bound->Cull(fan_out.get(), place.file), 0);
}

// Its object may be used.
TEST(CacheDirectoryTest, WhatCannotBeOpenedIsNotSaidToBeUnused) {
  World world;
  MakeObject(&world);
  const BackingName place = BackingNameOf(world.volume.key, kCookie);
  const std::string path = world.directory() + "/bound/cache/" + place.volume + "/" + place.fan_out;
  const UniqueFd fan_out(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const UniqueFd next(open("/dev/null", O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(fan_out.valid() && next.valid());
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const int last = fcntl(next.get(), F_DUPFD_CLOEXEC, next.get() + 1);
  ASSERT_EQ(close(last), 0);
  rlimit one_more = before;
  one_more.rlim_cur = static_cast<rlim_t>(last) + 1;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &one_more), 0);
  const int result = world.bound->InUse(fan_out.get(), place.file);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(result, -EIO);
  EXPECT_EQ(world.bound->InUse(fan_out.get(), place.file), -EBUSY);
}

// A `cull` of the client would remove the daemon's own files.
TEST(CacheDirectoryTest, NoDirectoryIsBoundThatHasOurOwnBelowItsCache) {
  std::string pattern = (std::filesystem::temp_directory_path() / "holdfast-XXXXXX").string();
  const std::filesystem::path top = mkdtemp(pattern.data());
  std::filesystem::create_directories(top / "cache/a/b");
  const char* const before = std::getenv("TMPDIR");
  const std::string temporary = before == nullptr ? "/tmp" : before;
  setenv("TMPDIR", (top / "cache/a/b").c_str(), 1);
  {
    World world;
    setenv("TMPDIR", temporary.c_str(), 1);
    CacheDirectory bound(world.cache.get(), [] {});
    const auto bind = [&bound](const std::filesystem::path& path) {
      return bound.Bind(UniqueFd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)), {}, {});
    };
    EXPECT_EQ(bind(top), -EBUSY);
    std::filesystem::create_directories(top / "beside");
    EXPECT_EQ(bind(top / "beside"), 0);
  }
  std::filesystem::remove_all(top);
}

// How `bind ondemand` ends.
int64_t BindTo(World* world, const std::string& directory) {
  EXPECT_EQ(world->device->Open(getpid()), 0);
  for (const std::string& command : {"dir " + directory, std::string("tag model")}) {
    EXPECT_GT(world->device->Write(getpid(), command), 0) << command;
  }
  const int64_t result = world->device->Write(getpid(), "bind ondemand");
  world->KeepStep();
  return result;
}

void Close(World* world) {
  world->device->CloseAll();
  world->KeepStep();
}

// Of a device in whose directory an object is used.
class LastDirectoryTest : public testing::Test {
 protected:
  LastDirectoryTest() {
    std::filesystem::create_directory(other_);
    EXPECT_TRUE(grants_->Keep({"erofs,model", kCookie}).ok());
  }

  void ExpectGuarded() {
    world_.bound->SetGrants(grants_.get());
    Close(&world_);
    EXPECT_EQ(BindTo(&world_, other_), -EBUSY);
    Close(&world_);
    EXPECT_GT(BindTo(&world_, first_), 0);
    Close(&world_);
    grants_->Release({"erofs,model", kCookie});
    EXPECT_GT(BindTo(&world_, other_), 0);
  }

  World world_;
  const std::string first_ = world_.directory() + "/bound";
  const std::string other_ = world_.directory() + "/other";
  const std::unique_ptr<Grants> grants_ =
      Grants::Open(world_.directory() + "/grants", Clock::Monotonic(), /*resumed=*/false).value();
};

TEST_F(LastDirectoryTest, IsKnownWithoutTheMemoryOfTheDevice) {
  world_.RestartWithoutMemory();
  ExpectGuarded();
}

TEST_F(LastDirectoryTest, IsThatOfADaemonThatDidNotKeepIt) {
  ASSERT_TRUE(std::filesystem::remove(world_.directory() + "/mark"));
  world_.Restart();
  ExpectGuarded();
}

TEST_F(LastDirectoryTest, IsNotBoundWhenItCannotBeKept) {
  Close(&world_);
  grants_->Release({"erofs,model", kCookie});
  world_.bound->SetGrants(grants_.get());
  const std::string mark = world_.directory() + "/mark";
  ASSERT_TRUE(std::filesystem::remove(mark));
  std::filesystem::create_directory(mark);
  EXPECT_EQ(BindTo(&world_, other_), -EIO);
  Close(&world_);
  ASSERT_TRUE(std::filesystem::remove(mark));
  EXPECT_GT(BindTo(&world_, other_), 0);
}

// The service manager keeps the open file, and so its lock, until it has read that it shall not.
TEST_F(LastDirectoryTest, IsNotLockedByABindThatWasNotAnswered) {
  Close(&world_);
  const UniqueFd stored(open(first_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ASSERT_EQ(flock(stored.get(), LOCK_EX | LOCK_NB), 0);
  ASSERT_TRUE(world_.device->Resume(UniqueFd(fcntl(stored.get(), F_DUPFD_CLOEXEC, 0))).ok());
  EXPECT_GT(BindTo(&world_, first_), 0);
}

TEST(CachefilesTroubleTest, GoesOnInTheNextDaemon) {
  World world;
  world.memory->PutTrouble("no room");
  world.memory->Commit();
  world.Restart();
  EXPECT_EQ(world.device->Describe().trouble, "no room");
}

}  // namespace
}  // namespace fusefs
