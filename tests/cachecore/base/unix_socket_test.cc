#include "cachecore/base/unix_socket.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <vector>

namespace cachecore {
namespace {

class UnixSocketTest : public testing::Test {
 protected:
  void SetUp() override {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    here_.Reset(ends[0]);
    there_.Reset(ends[1]);
  }
  static ino_t InodeOf(int fd) {
    struct stat info = {};
    EXPECT_EQ(fstat(fd, &info), 0);
    return info.st_ino;
  }
  // How many descriptors this process has.
  static int Open() {
    int count = 0;
    for (int fd = 0; fd < 1024; ++fd) count += fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
    return count;
  }

  UniqueFd here_;
  UniqueFd there_;
  std::array<char, 16> buffer_;
};

TEST_F(UnixSocketTest, APathIsTakenUpToTheLastByteThatFits) {
  const std::string longest(107, 'x');
  const Result<sockaddr_un> address = UnixAddress(longest);
  ASSERT_TRUE(address.ok());
  EXPECT_EQ(address->sun_family, AF_UNIX);
  EXPECT_EQ(address->sun_path, longest);
  const Status status = UnixAddress(longest + "y", "use a shorter --root").status();
  EXPECT_EQ(status.error(), ENAMETOOLONG);
  EXPECT_EQ(status.message(), longest +
                                  "y is too long for a Unix socket, which takes 107 bytes; "
                                  "use a shorter --root");
}

TEST_F(UnixSocketTest, AllDescriptorsThatFitAPacketArrive) {
  const std::vector<int> fds(kPacketFdsMax, there_.get());
  ASSERT_EQ(SendWithDescriptors(here_.get(), "all", fds), 3);
  std::vector<UniqueFd> got(kPacketFdsMax);
  const ReceivedPacket packet = ReceiveWithDescriptors(there_.get(), buffer_, got);
  EXPECT_EQ(packet.size, 3);
  ASSERT_EQ(packet.fd_count, kPacketFdsMax);
  EXPECT_FALSE(packet.has_more);
  EXPECT_EQ(packet.flags & (MSG_TRUNC | MSG_CTRUNC), 0);
  EXPECT_EQ(InodeOf(got.back().get()), InodeOf(there_.get()));
  EXPECT_NE(fcntl(got.back().get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST_F(UnixSocketTest, DescriptorsThatWereNotAskedForAreClosed) {
  const std::vector<int> fds(20, there_.get());
  const int before = Open();
  for (const size_t asked : {size_t{0}, size_t{1}, size_t{2}}) {
    ASSERT_EQ(SendWithDescriptors(here_.get(), "x", fds), 1);
    std::vector<UniqueFd> got(asked);
    const ReceivedPacket packet = ReceiveWithDescriptors(there_.get(), buffer_, got);
    EXPECT_EQ(packet.size, 1);
    EXPECT_EQ(packet.fd_count, asked);
    EXPECT_TRUE(packet.has_more || (packet.flags & MSG_CTRUNC) != 0);
    EXPECT_EQ(Open(), before + static_cast<int>(asked));
  }
}

TEST_F(UnixSocketTest, APacketHasItsSenderWhereTheSocketAsksForThat) {
  ASSERT_EQ(SendWithDescriptor(here_.get(), "x", -1), 1);
  EXPECT_FALSE(ReceiveWithDescriptors(there_.get(), buffer_, {}).sender.has_value());
  const int on = 1;
  ASSERT_EQ(setsockopt(there_.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on), 0);
  ASSERT_EQ(SendWithDescriptor(here_.get(), "x", here_.get()), 1);
  UniqueFd fd;
  const ReceivedPacket packet = ReceiveWithDescriptors(there_.get(), buffer_, {&fd, 1});
  ASSERT_TRUE(packet.sender.has_value());
  EXPECT_EQ(packet.sender->pid, getpid());
  EXPECT_TRUE(fd.valid());
}

TEST_F(UnixSocketTest, AnErrorIsTheErrnoAndTheEndIsZero) {
  EXPECT_EQ(ReceiveWithDescriptors(there_.get(), buffer_, {}, MSG_DONTWAIT).size, -1);
  EXPECT_EQ(errno, EAGAIN);
  here_.Reset();
  EXPECT_EQ(ReceiveWithDescriptors(there_.get(), buffer_, {}).size, 0);
  EXPECT_EQ(SendWithDescriptor(there_.get(), "x", -1), -1);
  EXPECT_EQ(errno, EPIPE);
}

}  // namespace
}  // namespace cachecore
