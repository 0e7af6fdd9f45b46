// FuseServer with the real operations and a real Cache, under a kernel that the test plays.

#include "fusefs/server/fuse_server.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <future>
#include <string>

#include "tests/fusefs/server/fake_kernel.h"
#include "tests/fusefs/server/fuse_life.h"
#include "tests/fusefs/server/gone_pid.h"

namespace fusefs {
namespace {

using cachecore::ByteRange;

constexpr ByteRange kBlock = FuseLife::kBlock;
constexpr ByteRange kLarge = {0, 65536};  // libfuse splices a reply of two pages or more.

class FuseServerTest : public testing::Test {
 protected:
  // The reply to INIT, which is the kernel's first request.
  fuse_init_out Agree(bool offers_resend = true) {
    return Reply(kernel_.SendInit(offers_resend)).As<fuse_init_out>();
  }
  FakeKernel::Reply Reply(uint64_t unique) {
    const cachecore::Result<FakeKernel::Reply> reply = kernel_.Await(unique);
    EXPECT_TRUE(reply.ok()) << reply.status().message();
    return reply.ok() ? *reply : FakeKernel::Reply{ETIMEDOUT, ""};
  }
  FakeKernel::Reply Lookup(uint64_t parent, const std::string& name) {
    return Reply(kernel_.SendLookup(parent, name, getpid()));
  }
  uint64_t SendRead(const FuseLife& life, ByteRange range, pid_t caller = getpid()) {
    return kernel_.SendRead(life.object.value, range, caller);
  }
  void ExpectBytes(uint64_t unique, ByteRange range, char byte) {
    const FakeKernel::Reply reply = Reply(unique);
    EXPECT_EQ(reply.error, 0);
    EXPECT_TRUE(reply.body == std::string(range.size(), byte)) << reply.body.size();
  }
  // Whether the server's threads end, as they do after an unmount.
  static bool Ends(FuseServer* server) {
    const std::future<void> ended =
        std::async(std::launch::async, [server] { server->WaitForUnmount(); });
    const bool has_ended = ended.wait_for(std::chrono::seconds(20)) == std::future_status::ready;
    if (!has_ended) server->Stop();
    return has_ended;
  }

  FakeKernel kernel_;
};

TEST_F(FuseServerTest, InitAgreesOnWhatTheOperationsNeed) {
  FuseLife life(kernel_, nullptr);
  const fuse_init_out agreed = Agree();
  EXPECT_EQ(agreed.major, static_cast<uint32_t>(FUSE_KERNEL_VERSION));
  EXPECT_EQ(agreed.max_write, FuseServerOptions().max_read);
  EXPECT_NE(agreed.flags & FUSE_ASYNC_READ, 0u);
  EXPECT_EQ(agreed.flags & (FUSE_AUTO_INVAL_DATA | FUSE_DO_READDIRPLUS | FUSE_ASYNC_DIO), 0u);
}

TEST_F(FuseServerTest, PresentBytesAreFoundAndRead) {
  FuseLife life(kernel_, nullptr);
  life.Fill(kLarge, 'x');
  Agree();
  const auto volume = Lookup(FUSE_ROOT_ID, "volume").As<fuse_entry_out>();
  EXPECT_EQ(volume.nodeid, life.volume.value);
  const auto object = Lookup(volume.nodeid, "object").As<fuse_entry_out>();
  EXPECT_EQ(object.nodeid, life.object.value);
  EXPECT_EQ(object.attr.size, FuseLife::kObjectBytes);
  const std::string getattr(sizeof(fuse_getattr_in), '\0');
  const uint64_t stat = kernel_.Send(FUSE_GETATTR, object.nodeid, getattr, getpid());
  EXPECT_EQ(Reply(stat).As<fuse_attr_out>().attr.size, FuseLife::kObjectBytes);
  const std::string open(sizeof(fuse_open_in), '\0');
  EXPECT_EQ(Reply(kernel_.Send(FUSE_OPEN, object.nodeid, open, getpid())).error, ENOSYS);
  ExpectBytes(SendRead(life, kBlock), kBlock, 'x');
  ExpectBytes(SendRead(life, kLarge), kLarge, 'x');
  const ByteRange past_end = ByteRange::At(FuseLife::kObjectBytes, 4096);
  EXPECT_EQ(Reply(SendRead(life, past_end)).body, "");
  const std::string release(sizeof(fuse_release_in), '\0');
  EXPECT_EQ(Reply(kernel_.Send(FUSE_RELEASE, object.nodeid, release, getpid())).error, 0);
  kernel_.SendForget(object.nodeid);
  EXPECT_EQ(Lookup(volume.nodeid, "object").error, 0);
  EXPECT_EQ(kernel_.refused_replies(), 0);
  EXPECT_EQ(life.server->reads(), 3u);
}

TEST_F(FuseServerTest, ANameWithoutAGrantIsNotFound) {
  FuseLife life(kernel_, nullptr);
  Agree();
  EXPECT_EQ(Lookup(FUSE_ROOT_ID, "other").error, ENOENT);
  EXPECT_EQ(Lookup(FUSE_ROOT_ID, "=7").error, ENOENT);
  EXPECT_EQ(Lookup(life.volume.value, "other").error, ENOENT);
  life.grants->Release({"volume", "object"});
  EXPECT_EQ(Lookup(life.volume.value, "object").error, ENOENT);
}

TEST_F(FuseServerTest, ALookUpOfAnUnknownObjectWaitsForTheFetcher) {
  FuseLife life(kernel_, nullptr);
  ASSERT_TRUE(life.grants->Keep({"volume", "new"}).ok());
  ASSERT_TRUE(life.grants->Keep({"volume", "none"}).ok());
  Agree();
  const uint64_t found = kernel_.SendLookup(life.volume.value, "new", getpid());
  auto open = life.AwaitOpen();
  ASSERT_TRUE(open.has_value());
  EXPECT_TRUE(kernel_.IsWaiting(found));
  EXPECT_EQ(life.rig.Execute(cachecore::wire::CopenCommand{open->msg_id, 5, 0}), 0);
  EXPECT_EQ(Reply(found).As<fuse_entry_out>().attr.size, 5u);
  const uint64_t missing = kernel_.SendLookup(life.volume.value, "none", getpid());
  open = life.AwaitOpen();
  ASSERT_TRUE(open.has_value());
  EXPECT_EQ(life.rig.Execute(cachecore::wire::CopenCommand{open->msg_id, -ENOENT, 0}), 0);
  EXPECT_EQ(Reply(missing).error, ENOENT);
}

TEST_F(FuseServerTest, AReadOfMissingBytesWaitsUntilTheyAreFilled) {
  FuseLife life(kernel_, nullptr);
  life.Fill(kBlock, 'x');
  Agree();
  const uint64_t large = SendRead(life, kLarge);
  ASSERT_TRUE(life.AwaitWaitingReads(1).ok());
  ExpectBytes(SendRead(life, kBlock), kBlock, 'x');  // A waiting read holds no thread.
  EXPECT_TRUE(kernel_.IsWaiting(large));
  life.Fill(kLarge, 'y');
  ExpectBytes(large, kLarge, 'y');
}

TEST_F(FuseServerTest, MoreWaitingReadsThanThreadsHoldNothingUp) {
  FuseLife life(kernel_, nullptr, /*threads=*/1);
  life.Fill(kBlock, 'x');
  Agree();
  const uint64_t first = SendRead(life, kLarge);
  const uint64_t second = SendRead(life, ByteRange::At(8192, 4096));
  ASSERT_TRUE(life.AwaitWaitingReads(2).ok());
  ExpectBytes(SendRead(life, kBlock), kBlock, 'x');
  life.Fill(kLarge, 'y');
  ExpectBytes(first, kLarge, 'y');
  ExpectBytes(second, kBlock, 'y');
}

TEST_F(FuseServerTest, ADataFileThatIsTooShortIsEioAndNoShortReply) {
  FuseLife life(kernel_, nullptr);
  life.Fill(kLarge, 'x');
  Agree();
  for (const ByteRange range : {kLarge, kBlock}) {  // Spliced, and copied.
    ASSERT_EQ(ftruncate(life.rig.data_fd.get(), static_cast<off_t>(range.size() / 2)), 0);
    const FakeKernel::Reply reply = Reply(SendRead(life, range));
    EXPECT_EQ(reply.error, EIO);
    EXPECT_EQ(reply.body, "");
  }
  EXPECT_EQ(kernel_.refused_replies(), 0);
}

TEST_F(FuseServerTest, AnInterruptEndsTheReadOfAKilledReaderOnly) {
  FuseLife life(kernel_, nullptr);
  Agree();
  const uint64_t living = SendRead(life, kBlock);
  const uint64_t killed = SendRead(life, kBlock, GonePid());
  ASSERT_TRUE(life.AwaitWaitingReads(2).ok());
  kernel_.SendInterrupt(living);
  kernel_.SendInterrupt(killed);
  EXPECT_EQ(Reply(killed).error, EINTR);
  EXPECT_TRUE(kernel_.IsWaiting(living));
  life.Fill(kBlock, 'x');
  ExpectBytes(living, kBlock, 'x');
}

TEST_F(FuseServerTest, AnInterruptThatComesBeforeItsRequestCounts) {
  FuseLife life(kernel_, nullptr, /*threads=*/1);  // Serves in the order of sending.
  Agree();
  kernel_.SendInterrupt(kernel_.next_unique());
  EXPECT_EQ(Reply(SendRead(life, kBlock, GonePid())).error, EINTR);
}

TEST_F(FuseServerTest, AnInterruptOfAWaitingLookUpEndsIt) {
  FuseLife life(kernel_, nullptr);
  ASSERT_TRUE(life.grants->Keep({"volume", "new"}).ok());
  Agree();
  const uint64_t killed = kernel_.SendLookup(life.volume.value, "new", GonePid());
  ASSERT_TRUE(life.AwaitOpen().has_value());
  kernel_.SendInterrupt(killed);
  EXPECT_EQ(Reply(killed).error, EINTR);
}

TEST_F(FuseServerTest, DestroyAndUnmountEndTheServerWhileReadsWait) {
  FuseLife life(kernel_, nullptr);
  Agree();
  SendRead(life, kBlock);
  SendRead(life, kLarge);
  ASSERT_TRUE(life.AwaitWaitingReads(2).ok());
  EXPECT_EQ(Reply(kernel_.Send(FUSE_DESTROY, 0, "", 0)).error, 0);
  kernel_.Unmount();
  EXPECT_TRUE(Ends(life.server.get()));
  life.Fill(kLarge, 'x');  // Their replies reach no process, and harm nothing.
  EXPECT_TRUE(life.rig.IsPresent(life.object, kLarge));
}

}  // namespace
}  // namespace fusefs
