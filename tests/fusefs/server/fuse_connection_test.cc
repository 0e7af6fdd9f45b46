#include "fusefs/server/fuse_connection.h"

#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

#include "cachecore/base/unique_fd.h"

namespace fusefs {
namespace {

// The test plays the kernel at the other end of a packet socket.
class FuseConnectionTest : public testing::Test {
 protected:
  FuseConnectionTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "holdfast-XXXXXX").string();
    directory_ = mkdtemp(pattern.data());
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    kernel_.Reset(ends[0]);
    device_.Reset(ends[1]);
  }
  ~FuseConnectionTest() override { std::filesystem::remove_all(directory_); }

  std::string StatePath() const { return directory_ + "/fuse.init"; }

  void KernelSends(uint32_t opcode, uint64_t unique, const std::string& body) {
    fuse_in_header header = {};
    header.len = static_cast<uint32_t>(sizeof(header) + body.size());
    header.opcode = opcode;
    header.unique = unique;
    std::string packet(reinterpret_cast<const char*>(&header), sizeof(header));
    packet += body;
    ASSERT_EQ(send(kernel_.get(), packet.data(), packet.size(), 0),
              static_cast<ssize_t>(packet.size()));
  }
  // What the daemon has sent to the kernel, or "".
  std::string KernelReceives() {
    char bytes[4096];
    const ssize_t got = recv(kernel_.get(), bytes, sizeof(bytes), MSG_DONTWAIT);
    return got > 0 ? std::string(bytes, static_cast<size_t>(got)) : "";
  }
  std::string Reads(FuseConnection* connection) {
    char bytes[4096];
    const ssize_t got = connection->Read(device_.get(), bytes, sizeof(bytes), &taken_);
    return got > 0 ? std::string(bytes, static_cast<size_t>(got)) : "";
  }
  void Answers(FuseConnection* connection, uint64_t unique, std::string body) {
    fuse_out_header header = {};
    header.len = static_cast<uint32_t>(sizeof(header) + body.size());
    header.unique = unique;
    iovec iov[2] = {{&header, sizeof(header)}, {body.data(), body.size()}};
    EXPECT_EQ(connection->Write(device_.get(), iov, 2, nullptr), static_cast<ssize_t>(header.len));
  }
  static uint64_t UniqueOf(const std::string& answer) {
    fuse_out_header header;
    std::memcpy(&header, answer.data(), sizeof(header));
    return header.unique;
  }

  std::string directory_;
  cachecore::UniqueFd kernel_;
  cachecore::UniqueFd device_;
  TakenRequest taken_;  // The last one.
};

// What a daemon answers to INIT, and what the next program would.
std::string InitAnswer(uint32_t flags, uint32_t max_write) {
  fuse_init_out init = {};
  init.major = FUSE_KERNEL_VERSION;
  init.minor = FUSE_KERNEL_MINOR_VERSION;
  init.flags = flags;
  init.max_write = max_write;
  return {reinterpret_cast<const char*>(&init), sizeof(init)};
}

TEST_F(FuseConnectionTest, InitIsSavedBeforeItCanBeAnswered) {
  FuseConnection connection(StatePath(), nullptr, true);
  KernelSends(FUSE_INIT, 1, "flags");
  const std::string init = Reads(&connection);
  EXPECT_EQ(std::filesystem::file_size(StatePath()), init.size());
  Answers(&connection, 1, "agreed");
  EXPECT_EQ(KernelReceives().substr(sizeof(fuse_out_header)), "agreed");
}

TEST_F(FuseConnectionTest, AnInitThatCannotBeSavedIsRefused) {
  FuseConnection connection(directory_ + "/missing/fuse.init", nullptr, true);
  KernelSends(FUSE_INIT, 1, "flags");
  KernelSends(FUSE_LOOKUP, 2, "name");
  EXPECT_EQ(Reads(&connection).substr(sizeof(fuse_in_header)), "name");
  fuse_out_header answer = {};
  const std::string bytes = KernelReceives();
  ASSERT_EQ(bytes.size(), sizeof(answer));
  std::memcpy(&answer, bytes.data(), sizeof(answer));
  EXPECT_EQ(answer.unique, 1u);
  EXPECT_EQ(answer.error, -EIO);
  EXPECT_TRUE(connection.refused());
  EXPECT_FALSE(connection.Reset().ok());  // Nor is there room for another one.
}

TEST_F(FuseConnectionTest, TheNextDaemonReplaysInitAndTheKernelDoesNotNotice) {
  FuseConnection first(StatePath(), nullptr, true);
  KernelSends(FUSE_INIT, 1, "flags");
  const std::string init = Reads(&first);
  Answers(&first, 1, "agreed");
  KernelReceives();

  FuseConnection second(StatePath(), nullptr, true);
  ASSERT_TRUE(second.Replay());
  EXPECT_EQ(Reads(&second), init);
  Answers(&second, 1, "agreed again");
  EXPECT_EQ(KernelReceives(), "");
  KernelSends(FUSE_READ, 3, "what");
  EXPECT_EQ(Reads(&second).substr(sizeof(fuse_in_header)), "what");
  Answers(&second, 3, "data");
  EXPECT_EQ(UniqueOf(KernelReceives()), 3u);
}

TEST_F(FuseConnectionTest, AnInitThatWasSavedAndNeverAnsweredIsAnsweredWhenTheKernelSendsItAgain) {
  FuseConnection first(StatePath(), nullptr, true);
  KernelSends(FUSE_INIT, 1, "flags");
  Reads(&first);  // And dies.

  FuseConnection second(StatePath(), nullptr, true);
  ASSERT_TRUE(second.Replay());
  Reads(&second);
  Answers(&second, 1, "agreed");
  KernelSends(FUSE_INIT, 1 | kResentBit, "flags");
  KernelSends(FUSE_LOOKUP, 2, "name");
  EXPECT_EQ(Reads(&second).substr(sizeof(fuse_in_header)), "name");
  const std::string answer = KernelReceives();
  EXPECT_EQ(UniqueOf(answer), 1 | kResentBit);
  EXPECT_EQ(answer.substr(sizeof(fuse_out_header)), "agreed");
}

TEST_F(FuseConnectionTest, WithoutASavedInitThereIsNothingToReplay) {
  FuseConnection connection(StatePath(), nullptr, true);
  EXPECT_FALSE(connection.Replay());
}

TEST_F(FuseConnectionTest, ATornOrForeignStateFileIsNotReplayed) {
  FuseConnection first(StatePath(), nullptr, true);
  KernelSends(FUSE_INIT, 1, "flags");
  Reads(&first);
  std::filesystem::resize_file(StatePath(), std::filesystem::file_size(StatePath()) - 1);
  FuseConnection second(StatePath(), nullptr, true);
  EXPECT_FALSE(second.Replay());
}

TEST_F(FuseConnectionTest, ANewMountForgetsTheOldInit) {
  FuseConnection first(StatePath(), nullptr, true);
  KernelSends(FUSE_INIT, 1, "flags");
  Reads(&first);
  EXPECT_TRUE(first.Reset().ok());
  EXPECT_FALSE(FuseConnection(StatePath(), nullptr, true).Replay());
  EXPECT_TRUE(first.Reset().ok());  // Nothing there is fine.
}

// INIT of a kernel that offers, or not, to send requests again.
std::string Init(bool resends) {
  fuse_init_in init = {};
  init.major = FUSE_KERNEL_VERSION;
  init.flags = FUSE_INIT_EXT;
  init.flags2 = resends ? 1u << 7 : 0;
  return std::string(reinterpret_cast<const char*>(&init), sizeof(init));
}

TEST_F(FuseConnectionTest, WhatAKernelCannotResendComesFromTheLogUntilItIsAnswered) {
  auto log = RequestLog::Open({}).value();
  FuseConnection first(StatePath(), log.get(), true);
  KernelSends(FUSE_INIT, 1, Init(false));
  Reads(&first);
  Answers(&first, 1, "agreed");
  KernelSends(FUSE_READ, 4, "answered");
  KernelSends(FUSE_READ, 6, "waiting");
  KernelSends(FUSE_LOOKUP, 8, "too");
  for (int i = 0; i < 3; ++i) Reads(&first);
  EXPECT_FALSE(taken_.resent);
  Answers(&first, 4, "data");  // And dies.
  while (!KernelReceives().empty()) {
  }

  log = RequestLog::Open(cachecore::UniqueFd(dup(log->memory()))).value();
  FuseConnection second(StatePath(), log.get(), true);
  ASSERT_TRUE(second.Replay());
  Reads(&second);
  Answers(&second, 1, "agreed");
  ASSERT_TRUE(second.TakeOver(device_.get()).ok());
  EXPECT_EQ(KernelReceives(), "");
  KernelSends(FUSE_READ, 10, "new");
  EXPECT_EQ(Reads(&second).substr(sizeof(fuse_in_header)), "waiting");
  EXPECT_TRUE(taken_.resent);
  EXPECT_EQ(Reads(&second).substr(sizeof(fuse_in_header)), "too");
  EXPECT_EQ(Reads(&second).substr(sizeof(fuse_in_header)), "new");
  EXPECT_FALSE(taken_.resent);
  Answers(&second, 6, "data");
  Answers(&second, 10, "data");  // And dies; the log has been handed on twice now.

  log = RequestLog::Open(cachecore::UniqueFd(dup(log->memory()))).value();
  const std::vector<std::string> left = log->TakeUnanswered();
  ASSERT_EQ(left.size(), 1u);
  EXPECT_EQ(left[0].substr(sizeof(fuse_in_header)), "too");
}

TEST_F(FuseConnectionTest, NothingIsLoggedWhereTheKernelResendsUnlessItMustNotBeAsked) {
  for (const bool may_resend : {true, false}) {
    const auto log = RequestLog::Open({}).value();
    FuseConnection connection(StatePath(), log.get(), may_resend);
    KernelSends(FUSE_INIT, 1, Init(true));
    Reads(&connection);
    Answers(&connection, 1, "agreed");
    KernelSends(FUSE_READ, 4, "waiting");
    Reads(&connection);
    const auto next = RequestLog::Open(cachecore::UniqueFd(dup(log->memory()))).value();
    EXPECT_EQ(next->TakeUnanswered().size(), may_resend ? 0u : 1u);
    ASSERT_TRUE(connection.Reset().ok());
    while (!KernelReceives().empty()) {
    }
  }
}

TEST_F(FuseConnectionTest, TheResendNoticeIsTheKernels) {
  FuseConnection connection(StatePath(), nullptr, true);
  ASSERT_TRUE(connection.TakeOver(device_.get()).ok());
  const std::string notice = KernelReceives();
  fuse_out_header header;
  ASSERT_EQ(notice.size(), sizeof(header));
  std::memcpy(&header, notice.data(), sizeof(header));
  EXPECT_EQ(header.len, sizeof(header));
  EXPECT_EQ(header.error, 7);  // FUSE_NOTIFY_RESEND.
  EXPECT_EQ(header.unique, 0u);
}

TEST_F(FuseConnectionTest, AProgramThatWouldServeAsAgreedMayTakeOver) {
  FuseConnection old_one(StatePath(), nullptr, true);
  KernelSends(FUSE_INIT, 2, "flags");
  Reads(&old_one);
  Answers(&old_one, 2, InitAnswer(7, 4096));
  EXPECT_NE(KernelReceives(), "");
  FuseConnection new_one(StatePath(), nullptr, true);
  ASSERT_TRUE(new_one.Replay());
  Reads(&new_one);
  Answers(&new_one, 2, InitAnswer(7, 4096));
  EXPECT_TRUE(new_one.CheckAnswer().ok());
}

TEST_F(FuseConnectionTest, AProgramThatWouldServeInAnotherWayIsToldWhatDiffers) {
  FuseConnection old_one(StatePath(), nullptr, true);
  KernelSends(FUSE_INIT, 2, "flags");
  Reads(&old_one);
  Answers(&old_one, 2, InitAnswer(7, 4096));
  FuseConnection new_one(StatePath(), nullptr, true);
  ASSERT_TRUE(new_one.Replay());
  Reads(&new_one);
  Answers(&new_one, 2, InitAnswer(15, 8192));
  const cachecore::Status checked = new_one.CheckAnswer();
  EXPECT_EQ(checked.error(), EPROTO);
  EXPECT_NE(checked.message().find("flags 7 and not 15, max_write 4096 and not 8192"),
            std::string::npos)
      << checked.message();
}

TEST_F(FuseConnectionTest, ANewMountForgetsWhatWasAgreedOnTheLastOne) {
  FuseConnection connection(StatePath(), nullptr, true);
  KernelSends(FUSE_INIT, 2, "flags");
  Reads(&connection);
  Answers(&connection, 2, InitAnswer(7, 4096));
  ASSERT_TRUE(connection.Reset().ok());
  EXPECT_FALSE(std::filesystem::exists(StatePath()));
  EXPECT_FALSE(std::filesystem::exists(StatePath() + ".answer"));
}

}  // namespace
}  // namespace fusefs
