#include "fusefs/fuse_connection.h"

#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

#include "cachecore/unique_fd.h"

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
    const ssize_t got = connection->Read(device_.get(), bytes, sizeof(bytes));
    return got > 0 ? std::string(bytes, static_cast<size_t>(got)) : "";
  }
  void Answers(FuseConnection* connection, uint64_t unique, std::string body) {
    fuse_out_header header = {};
    header.len = static_cast<uint32_t>(sizeof(header) + body.size());
    header.unique = unique;
    iovec iov[2] = {{&header, sizeof(header)}, {body.data(), body.size()}};
    EXPECT_EQ(connection->Write(device_.get(), iov, 2), static_cast<ssize_t>(header.len));
  }
  static uint64_t UniqueOf(const std::string& answer) {
    fuse_out_header header;
    std::memcpy(&header, answer.data(), sizeof(header));
    return header.unique;
  }

  std::string directory_;
  cachecore::UniqueFd kernel_;
  cachecore::UniqueFd device_;
};

TEST_F(FuseConnectionTest, InitIsSavedBeforeItCanBeAnswered) {
  FuseConnection connection(StatePath());
  KernelSends(FUSE_INIT, 1, "flags");
  const std::string init = Reads(&connection);
  EXPECT_EQ(std::filesystem::file_size(StatePath()), init.size());
  Answers(&connection, 1, "agreed");
  EXPECT_EQ(KernelReceives().substr(sizeof(fuse_out_header)), "agreed");
}

TEST_F(FuseConnectionTest, TheNextDaemonReplaysInitAndTheKernelHearsNothingOfIt) {
  FuseConnection first(StatePath());
  KernelSends(FUSE_INIT, 1, "flags");
  const std::string init = Reads(&first);
  Answers(&first, 1, "agreed");
  KernelReceives();

  FuseConnection second(StatePath());
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
  FuseConnection first(StatePath());
  KernelSends(FUSE_INIT, 1, "flags");
  Reads(&first);  // And dies.

  FuseConnection second(StatePath());
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
  FuseConnection connection(StatePath());
  EXPECT_FALSE(connection.Replay());
}

TEST_F(FuseConnectionTest, ATornOrForeignStateFileIsNotReplayed) {
  FuseConnection first(StatePath());
  KernelSends(FUSE_INIT, 1, "flags");
  Reads(&first);
  std::filesystem::resize_file(StatePath(), std::filesystem::file_size(StatePath()) - 1);
  FuseConnection second(StatePath());
  EXPECT_FALSE(second.Replay());
}

TEST_F(FuseConnectionTest, ANewMountForgetsTheOldInit) {
  FuseConnection first(StatePath());
  KernelSends(FUSE_INIT, 1, "flags");
  Reads(&first);
  EXPECT_TRUE(first.Reset().ok());
  EXPECT_FALSE(FuseConnection(StatePath()).Replay());
  EXPECT_TRUE(first.Reset().ok());  // Nothing there is fine.
}

TEST_F(FuseConnectionTest, TheResendNoticeIsTheKernels) {
  FuseConnection connection(StatePath());
  ASSERT_TRUE(connection.RequestResend(device_.get()).ok());
  const std::string notice = KernelReceives();
  fuse_out_header header;
  ASSERT_EQ(notice.size(), sizeof(header));
  std::memcpy(&header, notice.data(), sizeof(header));
  EXPECT_EQ(header.len, sizeof(header));
  EXPECT_EQ(header.error, 7);  // FUSE_NOTIFY_RESEND.
  EXPECT_EQ(header.unique, 0u);
}

}  // namespace
}  // namespace fusefs
