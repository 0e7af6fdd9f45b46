// Each operation of the control socket on a real Cache and real grants, with the test as fetcher.

#include "fusefs/control/control_ops.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <future>
#include <limits>
#include <string>

#include "cachecore/base/deadline.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/system/unix_listener.h"
#include "fusefs/cache_limits.h"
#include "tests/cachecore/cache/cache_rig.h"
#include "tests/cachecore/verity/built_tree.h"

namespace fusefs {
namespace {

using cachecore::CacheRig;
using cachecore::Deadline;
using cachecore::ListenUnix;
using cachecore::WaitUntil;
using nlohmann::json;
namespace wire = cachecore::wire;

constexpr std::chrono::seconds kPatience{20};
constexpr uint64_t kBytes = 4096;  // One block: its digest needs no tree.

class ControlOpsTest : public testing::Test {
 protected:
  ControlOpsTest() {
    std::filesystem::create_directory(run_dir_);
    grants_ = Grants::Open(run_dir_ + "/grants", cachecore::Clock::Monotonic(), false).value();
    auto listener = ListenUnix(run_dir_ + "/device.sock", SOCK_SEQPACKET, geteuid());
    device_ = DeviceServer::Make(std::move(listener).value(), geteuid()).value();
    fuse_ = std::make_unique<FuseServer>(FuseServerOptions(), run_dir_ + "/fuse.init", nullptr,
                                         rig_.cache.get(), grants_.get());
    ops_ = std::make_unique<ControlOps>(
        ControlOps::Parts{rig_.cache.get(), device_.get(), fuse_.get(), grants_.get(), "/fuse",
                          /*fail_on_detach=*/true, [this] { stopped_ = true; },
                          [this] { return limits_.Describe(); }});
  }

  json Ask(const json& request) { return json::parse(ops_->Handle(request.dump())); }
  static json Named(const std::string& op, const std::string& object = "object") {
    return {{"op", op}, {"volume", "volume"}, {"object", object}};
  }
  // The answer to a request that waits for the fetcher, which answers OPEN with `size`.
  json AskAndOpen(const json& request, int64_t size) {
    std::future<json> answer = std::async(std::launch::async, [&] { return Ask(request); });
    std::optional<wire::OpenMessage> open;
    const auto has_come = [&] { return (open = rig_.NextOpen()).has_value(); };
    EXPECT_TRUE(WaitUntil(has_come, Deadline(kPatience)).ok());
    if (open) {
      EXPECT_EQ(rig_.Execute(wire::CopenCommand{open->msg_id, size, 0}), 0);
    } else {
      ops_->Cancel();
    }
    return answer.get();
  }
  static void ExpectRefused(const json& answer, int error) {
    EXPECT_EQ(answer["ok"], false) << answer;
    EXPECT_EQ(answer["errno"], error) << answer;
    EXPECT_NE(answer["error"], "") << answer;
  }
  // The object, with the digest of its bytes, all of them present.
  cachecore::ObjectNumber MakeVerified(char byte) {
    const auto info = rig_.Acquire(kBytes);
    EXPECT_TRUE(info.ok());
    const auto digest = cachecore::BuildOf(std::string(kBytes, 'x')).digest;
    EXPECT_EQ(rig_.Execute(wire::VerityCommand{rig_.live, digest}), 0);
    rig_.Write({0, kBytes}, byte);
    EXPECT_EQ(rig_.Execute(wire::FilledCommand{rig_.live, {0, kBytes}}), 0);
    return info->number;
  }

  CacheRig rig_;
  const std::string run_dir_ = rig_.directory + "/run";
  std::unique_ptr<Grants> grants_;
  std::unique_ptr<DeviceServer> device_;
  std::unique_ptr<FuseServer> fuse_;
  bool stopped_ = false;
  CacheLimits limits_{{},
                      cachecore::Clock::Monotonic(),
                      rig_.cache.get(),
                      [](const std::string&, const std::string&) { return false; }};
  std::unique_ptr<ControlOps> ops_;
};

TEST_F(ControlOpsTest, APingIsAnsweredWithTheProcess) {
  const json answer = Ask({{"op", "ping"}});
  EXPECT_EQ(answer["ok"], true);
  EXPECT_EQ(answer["pid"], getpid());
  EXPECT_EQ(answer["version"], HOLDFAST_VERSION);
}

TEST_F(ControlOpsTest, WhatIsNoRequestIsRefused) {
  for (const char* line : {"", "ping", "[]", "{}", "{\"op\":7}", "{\"op\":\"ping\"", "\xff\n"}) {
    ExpectRefused(json::parse(ops_->Handle(line)), EINVAL);
  }
  const json unknown = Ask({{"op", "dance"}});
  ExpectRefused(unknown, EOPNOTSUPP);
  EXPECT_EQ(
      unknown["error"],
      "unknown op; there are ping, status, acquire, keep, mounted, release, shut, verify, limit, "
      "pin, unpin, list, remove, trace, history, stop");
}

TEST_F(ControlOpsTest, StatusShowsObjectsAndWaitingRequests) {
  const auto info = rig_.Acquire(kBytes);
  ASSERT_TRUE(info.ok());
  json answer = Ask({{"op", "status"}});
  EXPECT_EQ(answer["ok"], true);
  EXPECT_EQ(answer["detach_policy"], "fail");
  EXPECT_EQ(answer["fetcher"], json({{"attached", false}}));
  ASSERT_EQ(answer["objects"].size(), 1u);
  EXPECT_EQ(answer["objects"][0]["name"], "object");
  EXPECT_EQ(answer["objects"][0]["size"], kBytes);
  EXPECT_EQ(answer["requests"]["waiting"], 0);

  rig_.cache->Read(info->number, {0, 1}, [](const auto&, const auto&) {});
  answer = Ask(Named("status"));
  EXPECT_EQ(answer["requests"]["waiting"], 1);
  EXPECT_EQ(answer["requests"]["list"][0]["op"], "READ");
  EXPECT_EQ(answer["requests"]["list"][0]["object"], info->number.value);
  answer = Ask(Named("status", "other"));  // Filters the list, not the count.
  EXPECT_EQ(answer["objects"].size(), 0u);
  EXPECT_EQ(answer["object_count"], 1);
}

TEST_F(ControlOpsTest, AcquireWaitsForTheFetcherAndGrantsTheName) {
  const json first = AskAndOpen(Named("acquire"), kBytes);
  EXPECT_EQ(first["ok"], true) << first;
  EXPECT_EQ(first["size"], kBytes);
  EXPECT_EQ(first["path"], "/fuse/volume/object");
  EXPECT_EQ(first["directory"], "/fuse/=1");
  EXPECT_TRUE(grants_->Has({"volume", "object"}));
  const json again = Ask(Named("acquire"));  // Known: the fetcher is not asked.
  EXPECT_EQ(again["number"], first["number"]);
  EXPECT_EQ(again["directory"], "/fuse/=1");
}

TEST_F(ControlOpsTest, AnAcquireThatFailsGrantsNothing) {
  ExpectRefused(AskAndOpen(Named("acquire"), -EACCES), EACCES);
  json illegal = Named("acquire");
  illegal["volume"] = "a/b";
  ExpectRefused(Ask(illegal), EINVAL);
  ExpectRefused(Ask({{"op", "acquire"}}), EINVAL);
  EXPECT_FALSE(grants_->Has({"volume", "object"}));
}

TEST_F(ControlOpsTest, AnAcquireEndsAtItsTimeout) {
  json request = Named("acquire");
  request["timeout_ms"] = 1;
  std::future<json> answer = std::async(std::launch::async, [&] { return Ask(request); });
  const auto has_ended = [&] {
    rig_.cache->Expire();
    return answer.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  };
  if (!WaitUntil(has_ended, Deadline(kPatience)).ok()) ops_->Cancel();
  ExpectRefused(answer.get(), ETIMEDOUT);
}

TEST_F(ControlOpsTest, AnAcquireForAMountEndsWithItsConnection) {
  json request = Named("acquire");
  request["lend_ms"] = 60000;
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const cachecore::UniqueFd ours(ends[0]);
  cachecore::UniqueFd mount(ends[1]);
  ASSERT_TRUE(rig_.cache->device().Attach().ok());
  std::future<std::string> answer =
      std::async(std::launch::async, [&] { return ops_->Handle(request.dump(), ours.get()); });
  const auto waiters = [&] {
    const json list = Ask({{"op", "status"}})["requests"]["list"];
    return list.empty() ? 0 : list[0]["waiters"].get<int>();
  };
  EXPECT_TRUE(WaitUntil([&] { return waiters() == 1; }, Deadline(kPatience)).ok());
  mount = cachecore::UniqueFd();
  const bool has_ended = answer.wait_for(kPatience) == std::future_status::ready;
  EXPECT_TRUE(has_ended);
  if (!has_ended) ops_->Cancel();
  ExpectRefused(json::parse(answer.get()), ECANCELED);
  EXPECT_EQ(waiters(), 0);
}

TEST_F(ControlOpsTest, CancelEndsAnAcquireThatWaitsAndEachLaterOne) {
  std::future<json> answer = std::async(std::launch::async, [&] { return Ask(Named("acquire")); });
  EXPECT_TRUE(
      WaitUntil([&] { return !rig_.cache->DescribeRequests().empty(); }, Deadline(kPatience)).ok());
  ops_->Cancel();
  ExpectRefused(answer.get(), ECANCELED);
  ExpectRefused(Ask(Named("acquire", "later")), ECANCELED);
}

TEST_F(ControlOpsTest, ALoanCanBeKeptAndReleased) {
  json loan = Named("acquire");
  loan["lend_ms"] = 3'600'000;
  EXPECT_EQ(AskAndOpen(loan, kBytes)["ok"], true);
  EXPECT_TRUE(grants_->Has({"volume", "object"}));
  EXPECT_EQ(Ask(Named("keep"))["ok"], true);
  EXPECT_EQ(Ask(Named("release"))["ok"], true);
  EXPECT_FALSE(grants_->Has({"volume", "object"}));
  EXPECT_EQ(Ask(Named("release"))["ok"], true);  // Not granted: nothing to do.
  ExpectRefused(Ask(Named("keep")), ENOENT);
}

TEST_F(ControlOpsTest, ALoanOfNoTimeIsOver) {
  json loan = Named("acquire");
  loan["lend_ms"] = 0;
  EXPECT_EQ(AskAndOpen(loan, kBytes)["ok"], true);
  ExpectRefused(Ask(Named("keep")), ENOENT);
}

TEST_F(ControlOpsTest, AGrantThatCannotBeWrittenDownIsRefused) {
  ASSERT_TRUE(rig_.Acquire(kBytes).ok());
  json loan = Named("acquire");
  loan["lend_ms"] = 3'600'000;
  EXPECT_EQ(Ask(loan)["ok"], true);
  std::filesystem::remove_all(run_dir_);
  const json refused = Ask(Named("keep"));
  ExpectRefused(refused, ENOENT);
  EXPECT_NE(refused["error"].get<std::string>().find(run_dir_ + "/grants"), std::string::npos);
  ExpectRefused(Ask(Named("acquire")), ENOENT);
}

TEST_F(ControlOpsTest, AShutObjectRefusesReadsThatWaitUntilItIsAcquired) {
  const auto info = rig_.Acquire(kBytes);
  ASSERT_TRUE(info.ok());
  int error = -1;
  const auto read = [&] {
    error = -1;
    rig_.cache->Read(info->number, {0, 1},
                     [&](const cachecore::Status& status, const auto&) { error = status.error(); });
  };
  read();
  const json answer = Ask(Named("shut"));
  EXPECT_EQ(answer["ok"], true);
  EXPECT_EQ(answer["number"], info->number.value);
  EXPECT_EQ(error, EIO);
  read();
  EXPECT_EQ(error, EIO);
  EXPECT_EQ(Ask(Named("acquire"))["ok"], true);
  read();
  EXPECT_EQ(error, -1);  // Waits.
  rig_.Write({0, kBytes}, 'x');
  EXPECT_EQ(rig_.Execute(wire::FilledCommand{rig_.live, {0, kBytes}}), 0);
  EXPECT_EQ(error, 0);
}

TEST_F(ControlOpsTest, AShutOfWhatTheFetcherRefusesIsRefused) {
  ExpectRefused(AskAndOpen(Named("shut"), -ENOENT), ENOENT);
}

TEST_F(ControlOpsTest, VerifyChecksWhatIsPresent) {
  const json request = {{"op", "verify"}, {"number", MakeVerified('x').value}, {"length", kBytes}};
  const json answer = Ask(request);
  EXPECT_EQ(answer["ok"], true) << answer;
  EXPECT_EQ(answer["checked"], kBytes);
  EXPECT_EQ(answer["wrong"], 0);
  EXPECT_EQ(answer["next"], kBytes);
}

TEST_F(ControlOpsTest, VerifyTellsOfWrongBytesThatTheFetcherDoesNotReplace) {
  const json request = {
      {"op", "verify"}, {"number", MakeVerified('y').value}, {"length", kBytes}, {"timeout_ms", 1}};
  const json answer = Ask(request);
  EXPECT_EQ(answer["ok"], true) << answer;
  EXPECT_EQ(answer["wrong"], kBytes);
  EXPECT_EQ(answer["healed"], 0);
  EXPECT_NE(answer["why"], "");
}

TEST_F(ControlOpsTest, AVerifyOfWhatCannotBeCheckedIsRefused) {
  const auto info = rig_.Acquire(kBytes);
  ASSERT_TRUE(info.ok());
  json request = {{"op", "verify"}, {"number", info->number.value}, {"length", kBytes}};
  ExpectRefused(Ask(request), EOPNOTSUPP);  // No digest.
  request["offset"] = std::numeric_limits<uint64_t>::max();
  ExpectRefused(Ask(request), EINVAL);
  ExpectRefused(Ask({{"op", "verify"}, {"number", 999}}), ESTALE);
}

TEST_F(ControlOpsTest, LimitsAreShownAndChanged) {
  EXPECT_EQ(Ask({{"op", "limit"}})["cache"]["max"], "none");
  const json changed = Ask({{"op", "limit"}, {"max", "80%"}, {"min_free", "1M"}});
  EXPECT_EQ(changed["ok"], true) << changed;
  EXPECT_EQ(changed["cache"]["max"], "80%");
  EXPECT_EQ(changed["cache"]["min_free"], "1048576");
  ExpectRefused(Ask({{"op", "limit"}, {"max", "much"}, {"min_free", "2M"}}), EINVAL);
  EXPECT_EQ(Ask({{"op", "status"}})["cache"]["min_free"], "1048576");
}

TEST_F(ControlOpsTest, PinsAreOfObjectsThatAreThereAndAreShown) {
  ExpectRefused(Ask(Named("pin")), ENOENT);
  ASSERT_TRUE(rig_.Acquire(kBytes).ok());
  EXPECT_EQ(Ask(Named("pin"))["ok"], true);
  EXPECT_EQ(Ask({{"op", "list"}})["objects"][0]["pinned"], true);
  EXPECT_EQ(Ask({{"op", "status"}})["objects"][0]["pinned"], true);
  EXPECT_EQ(Ask(Named("unpin"))["ok"], true);
  EXPECT_EQ(Ask({{"op", "list"}})["objects"][0]["pinned"], false);
}

TEST_F(ControlOpsTest, WhatIsGrantedIsRemovedAsBytesAlone) {
  MakeVerified('x');
  EXPECT_EQ(Ask(Named("acquire"))["ok"], true);
  json listed = Ask({{"op", "list"}})["objects"][0];
  EXPECT_EQ(listed["mounted"], true);
  EXPECT_EQ(listed["present"], kBytes);
  ExpectRefused(Ask(Named("remove")), EBUSY);
  json request = Named("remove");
  request["bytes_only"] = true;
  EXPECT_EQ(Ask(request)["removed"], listed["allocated"]);
  EXPECT_EQ(Ask({{"op", "list"}})["objects"][0]["present"], 0);
  EXPECT_EQ(Ask(Named("release"))["ok"], true);
  EXPECT_EQ(Ask(Named("pin"))["ok"], true);
  request = Named("remove");
  request["unless_pinned"] = true;
  ExpectRefused(Ask(request), EBUSY);
  EXPECT_EQ(Ask(Named("remove"))["ok"], true);
  EXPECT_TRUE(Ask({{"op", "list"}})["objects"].empty());
  ExpectRefused(Ask(Named("remove")), ENOENT);
}

TEST_F(ControlOpsTest, CancelEndsAVerify) {
  const json request = {{"op", "verify"}, {"number", MakeVerified('x').value}, {"length", kBytes}};
  ops_->Cancel();
  ExpectRefused(Ask(request), ECANCELED);
}

TEST_F(ControlOpsTest, StopIsPassedOnToTheDaemon) {
  EXPECT_FALSE(stopped_);
  EXPECT_EQ(Ask({{"op", "stop"}})["ok"], true);
  EXPECT_TRUE(stopped_);
}

TEST_F(ControlOpsTest, ANameOfAnyBytesLeavesTheAnswerJson) {
  const cachecore::ObjectNumber volume = *rig_.cache->AddVolume("volume");
  rig_.cache->Acquire({volume, "volume"}, "\xff", {}, cachecore::Freshness::kKnown,
                      [](const auto&) {});
  rig_.AnswerOpen(kBytes);
  const json answer = Ask({{"op", "status"}});
  ASSERT_EQ(answer["objects"].size(), 1u);
  EXPECT_EQ(cachecore::JsonString(answer["objects"][0], "name"), "\xff");
}

}  // namespace
}  // namespace fusefs
