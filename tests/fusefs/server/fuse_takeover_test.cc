// A FuseServer that takes over the connection of another one, under a kernel that the test plays.

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "fusefs/server/fuse_server.h"
#include "tests/fusefs/server/fake_kernel.h"
#include "tests/fusefs/server/fuse_life.h"
#include "tests/fusefs/server/gone_pid.h"

namespace fusefs {
namespace {

using cachecore::ByteRange;

constexpr ByteRange kBlock = FuseLife::kBlock;

class FuseTakeoverTest : public testing::TestWithParam<bool> {
 protected:
  FuseTakeoverTest() : old_(kernel_, nullptr) {
    EXPECT_TRUE(kernel_.Await(kernel_.SendInit(OffersResend())).ok());
  }
  bool OffersResend() const { return GetParam(); }
  uint64_t SendRead(pid_t caller = getpid()) {
    return kernel_.SendRead(old_.object.value, kBlock, caller);
  }
  // The old server has taken it.
  uint64_t SendReadThatWaits(pid_t caller = getpid()) {
    const uint64_t unique = SendRead(caller);
    EXPECT_TRUE(old_.AwaitWaitingReads(++waiting_).ok());
    return unique;
  }
  void ExpectBytes(uint64_t unique, char byte) {
    const auto reply = kernel_.Await(unique);
    ASSERT_TRUE(reply.ok()) << reply.status().message();
    EXPECT_EQ(reply->error, 0);
    EXPECT_TRUE(reply->body == std::string(kBlock.size(), byte)) << reply->body.size();
  }
  void ExpectInterrupted(uint64_t unique) {
    const auto reply = kernel_.Await(unique);
    ASSERT_TRUE(reply.ok()) << reply.status().message();
    EXPECT_EQ(reply->error, EINTR);
    old_.Fill(kBlock, 'x');  // Ends what the old Cache holds.
  }

  FakeKernel kernel_;
  FuseLife old_;
  uint32_t waiting_ = 0;
};

TEST_P(FuseTakeoverTest, ASuccessorServesWithoutASecondInit) {
  old_.server->Stop();
  FuseLife successor(kernel_, &old_);
  successor.Fill(kBlock, 'y');
  ExpectBytes(SendRead(), 'y');
  EXPECT_EQ(kernel_.refused_replies(), 0);  // The reply to the replayed INIT among them.
}

TEST_P(FuseTakeoverTest, ASuccessorRepliesToWhatTheOldServerHadTaken) {
  ASSERT_TRUE(old_.grants->Keep({"volume", "new"}).ok());
  const uint64_t look_up = kernel_.SendLookup(old_.volume.value, "new", getpid());
  const auto unanswered = old_.AwaitOpen();
  ASSERT_TRUE(unanswered.has_value());
  const uint64_t read = SendReadThatWaits();
  old_.server->Stop();

  FuseLife successor(kernel_, &old_);
  EXPECT_TRUE(kernel_.IsWaiting(read));
  successor.Fill(kBlock, 'y');
  ExpectBytes(read, 'y');
  const auto again = successor.AwaitOpen();
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(successor.rig.Execute(cachecore::wire::CopenCommand{again->msg_id, 7, 0}), 0);
  const auto found = kernel_.Await(look_up);
  ASSERT_TRUE(found.ok()) << found.status().message();
  EXPECT_EQ(found->As<fuse_entry_out>().attr.size, 7u);
  EXPECT_EQ(kernel_.refused_replies(), 0);

  // The old server's Cache ends what it held: too late.
  EXPECT_EQ(old_.rig.Execute(cachecore::wire::CopenCommand{unanswered->msg_id, 7, 0}), 0);
  old_.Fill(kBlock, 'x');
  EXPECT_FALSE(kernel_.IsWaiting(read));
  EXPECT_EQ(kernel_.refused_replies(), 2);
}

TEST_P(FuseTakeoverTest, WhatTheOldServerAnsweredIsNotAskedOfTheSuccessor) {
  const uint64_t read = SendReadThatWaits();
  old_.server->Stop();
  old_.Fill(kBlock, 'x');
  ExpectBytes(read, 'x');
  FuseLife successor(kernel_, &old_);
  successor.Fill(kBlock, 'y');
  ExpectBytes(SendRead(), 'y');
  // The log may show an answered request, whose second reply the kernel refuses.
  EXPECT_LE(kernel_.refused_replies(), OffersResend() ? 0 : 1);
}

TEST_P(FuseTakeoverTest, AnInterruptOfAResentReadReachesTheSuccessor) {
  // 0: a reader that the daemon's pid namespace cannot name.  Only an INTERRUPT tells of its end.
  const uint64_t killed = SendReadThatWaits(0);
  old_.server->Stop();
  FuseLife successor(kernel_, &old_);
  EXPECT_TRUE(kernel_.IsWaiting(killed));
  ASSERT_TRUE(successor.AwaitWaitingReads(1).ok());
  kernel_.SendInterrupt(killed);
  ExpectInterrupted(killed);
}

TEST_P(FuseTakeoverTest, AResentReadOfAReaderThatIsGoneEndsWithoutAnInterrupt) {
  const uint64_t killed = SendReadThatWaits(GonePid());
  old_.server->Stop();
  FuseLife successor(kernel_, &old_);
  ExpectInterrupted(killed);
}

TEST_P(FuseTakeoverTest, ARequestIsHandedOnFromLifeToLife) {
  const uint64_t read = SendReadThatWaits();
  old_.server->Stop();
  FuseLife second(kernel_, &old_);
  EXPECT_TRUE(kernel_.AwaitResends(OffersResend() ? 1 : 0).ok());
  ASSERT_TRUE(second.AwaitWaitingReads(1).ok());
  second.server->Stop();
  FuseLife third(kernel_, &second);
  EXPECT_TRUE(kernel_.AwaitResends(OffersResend() ? 2 : 0).ok());
  third.Fill(kBlock, 'z');
  ExpectBytes(read, 'z');
  EXPECT_EQ(kernel_.refused_replies(), 0);
  second.Fill(kBlock, 'y');
  old_.Fill(kBlock, 'x');
}

TEST_P(FuseTakeoverTest, AnUnmountBetweenTwoServersEndsTheSuccessor) {
  SendReadThatWaits();
  old_.server->Stop();
  kernel_.Unmount();
  FuseLife successor(kernel_, &old_);
  successor.server->WaitForUnmount();
  successor.Fill(kBlock, 'y');
  old_.Fill(kBlock, 'x');
}

INSTANTIATE_TEST_SUITE_P(Kernel, FuseTakeoverTest, testing::Bool(), [](const auto& test) {
  return std::string(test.param ? "Resends" : "CannotResend");
});

}  // namespace
}  // namespace fusefs
