// FuseLife: one life of the daemon as FakeKernel sees it: a FuseServer with its grants on a real
// Cache, which knows "volume"/"object" and grants it.
//
// Model    a successor is another FuseLife on a store of its own, in which the object has the same
//          number: a predecessor can still hold requests, as two processes on one store could not.
// Threads  one, beside those of the server.
// Owns     all of it; ends the server before the Cache.

#ifndef TESTS_FUSEFS_SERVER_FUSE_LIFE_H_
#define TESTS_FUSEFS_SERVER_FUSE_LIFE_H_

#include <fcntl.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "cachecore/base/deadline.h"
#include "fusefs/server/fuse_server.h"
#include "tests/cachecore/cache/cache_rig.h"
#include "tests/fusefs/server/fake_kernel.h"

namespace fusefs {

class FuseLife {
 public:
  static constexpr uint64_t kObjectBytes = 1 << 20;
  static constexpr cachecore::ByteRange kBlock = {0, 4096};

  // `before`: the life whose connection is taken over; null for a new mount.
  FuseLife(const FakeKernel& kernel, const FuseLife* before, int threads = 4) {
    const auto info = rig.Acquire(kObjectBytes);
    EXPECT_TRUE(info.ok());
    object = info->number;
    volume = info->volume;
    run_dir_ = before != nullptr ? before->run_dir_ : rig.directory;
    grants = Grants::Open(run_dir_ + "/grants", cachecore::Clock::Monotonic(), before != nullptr)
                 .value();
    EXPECT_TRUE(grants->Keep({"volume", "object"}).ok());
    auto log = RequestLog::Open(before != nullptr ? before->LogMemory() : cachecore::UniqueFd());
    EXPECT_TRUE(log.ok());
    log_memory_ = (*log)->memory();
    FuseServerOptions options;
    options.threads = threads;
    server = std::make_unique<FuseServer>(options, run_dir_ + "/fuse.init", std::move(log).value(),
                                          rig.cache.get(), grants.get());
    EXPECT_TRUE(server->Start(kernel.DaemonEnd(), before != nullptr).ok());
  }

  // The fetcher writes and reports these bytes of the object.
  void Fill(cachecore::ByteRange range, char byte) {
    rig.Write(range, byte);
    EXPECT_EQ(rig.Execute(cachecore::wire::FilledCommand{rig.live, range}), 0);
  }
  // Until so many reads wait for the fetcher.
  cachecore::Status AwaitWaitingReads(uint32_t count) {
    const auto are_there = [&] {
      uint32_t waiting = 0;
      for (const auto& request : rig.cache->DescribeRequests()) {
        if (request.opcode == cachecore::wire::Opcode::kRead) waiting += request.waiters;
      }
      return waiting == count;
    };
    return cachecore::WaitUntil(are_there, cachecore::Deadline(std::chrono::seconds(20)));
  }
  // Until the Cache asks the fetcher to open an object.
  std::optional<cachecore::wire::OpenMessage> AwaitOpen() {
    std::optional<cachecore::wire::OpenMessage> open;
    const auto has_come = [&] { return (open = rig.NextOpen()).has_value(); };
    EXPECT_TRUE(cachecore::WaitUntil(has_come, cachecore::Deadline(std::chrono::seconds(20))).ok());
    return open;
  }

  cachecore::CacheRig rig;
  cachecore::ObjectNumber object;
  cachecore::ObjectNumber volume;
  std::unique_ptr<Grants> grants;
  std::unique_ptr<FuseServer> server;

 private:
  cachecore::UniqueFd LogMemory() const {
    return cachecore::UniqueFd(fcntl(log_memory_, F_DUPFD_CLOEXEC, 0));
  }

  std::string run_dir_;
  int log_memory_ = -1;  // The server's.
};

}  // namespace fusefs

#endif  // TESTS_FUSEFS_SERVER_FUSE_LIFE_H_
