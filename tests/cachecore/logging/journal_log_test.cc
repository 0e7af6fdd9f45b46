#include "cachecore/logging/journal_log.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "cachecore/logging/log_fields.h"
#include "cachecore/logging/log_limiter.h"

namespace cachecore {
namespace {

// The journal, which the test is itself.
class JournalLogTest : public testing::Test {
 protected:
  JournalLogTest() {
    struct stat info;
    fstat(STDERR_FILENO, &info);
    setenv("JOURNAL_STREAM",
           (std::to_string(info.st_dev) + ":" + std::to_string(info.st_ino)).c_str(), 1);
    Listen();
  }
  ~JournalLogTest() override {
    unsetenv("JOURNAL_STREAM");
    std::filesystem::remove_all(directory_);
  }
  void Listen() {
    std::filesystem::remove(path_);
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, path_.size());
    journal_.Reset(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    ASSERT_EQ(bind(journal_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  // "" when there is none.
  std::string Datagram() {
    std::string text(1 << 18, '\0');
    const ssize_t size = recv(journal_.get(), text.data(), text.size(), 0);
    text.resize(size > 0 ? static_cast<size_t>(size) : 0);
    return text;
  }
  static bool Has(const std::string& datagram, const std::string& line) {
    return ("\n" + datagram).find("\n" + line + "\n") != std::string::npos;
  }

  const std::string directory_ = [] {
    std::string name = std::filesystem::temp_directory_path() / "journal-XXXXXX";
    return std::string(mkdtemp(name.data()));
  }();
  const std::string path_ = directory_ + "/socket";
  UniqueFd journal_;
};

TEST_F(JournalLogTest, ALineHasFieldsOfWhatItIsAbout) {
  const JournalLog log("holdfastd", path_);
  LOG(ERROR) << LogAbout{LogKind::kWrongBytes, "volume/cookie", ByteRange{0, 4096}}
             << "it is wrong";
  const std::string about = Datagram();
  EXPECT_TRUE(Has(about, "MESSAGE=it is wrong")) << about;
  EXPECT_TRUE(Has(about, "PRIORITY=3"));
  EXPECT_TRUE(Has(about, "SYSLOG_IDENTIFIER=holdfastd"));
  EXPECT_TRUE(Has(about, std::string("MESSAGE_ID=") + MessageId(LogKind::kWrongBytes)));
  EXPECT_TRUE(Has(about, "HOLDFAST_OBJECT=volume/cookie"));
  EXPECT_TRUE(Has(about, "HOLDFAST_RANGE=" + ByteRange{0, 4096}.ToString()));
  LOG(WARNING) << "of nothing in particular";
  const std::string plain = Datagram();
  EXPECT_TRUE(Has(plain, "PRIORITY=4"));
  EXPECT_EQ(plain.find("MESSAGE_ID"), std::string::npos);
  EXPECT_EQ(plain.find("HOLDFAST_"), std::string::npos);
}

TEST_F(JournalLogTest, AValueForgesNoField) {
  const JournalLog log("holdfastd", path_);
  LogLimiter limiter(Clock::Monotonic());
  limiter.Warn("text", {.kind = LogKind::kOther, .object = "a\nPRIORITY=0\n"});
  const std::string datagram = Datagram();
  EXPECT_FALSE(Has(datagram, "PRIORITY=0"));
  EXPECT_TRUE(Has(datagram, "HOLDFAST_OBJECT=a PRIORITY=0 "));
}

TEST_F(JournalLogTest, AJournalThatHangsHoldsNobodyUpAndTheNextOneIsFound) {
  const JournalLog log("holdfastd", path_);
  for (int i = 0; i < 5000; ++i) LOG(INFO) << "line " << i;  // More than its socket takes.
  Listen();
  LOG(INFO) << "after its restart";
  EXPECT_TRUE(Has(Datagram(), "MESSAGE=after its restart"));
}

TEST_F(JournalLogTest, NothingIsSentWhereStderrIsNotTheJournal) {
  setenv("JOURNAL_STREAM", "1:1", 1);
  const JournalLog log("holdfastd", path_);
  LOG(INFO) << "a line";
  EXPECT_EQ(Datagram(), "");
}

}  // namespace
}  // namespace cachecore
