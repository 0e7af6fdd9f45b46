// The fetcher and its daemon: sources, file origins, attaching and losing the connection.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "cachecore/verity/block_hasher.h"
#include "tests/fetcher/engine/fetcher_fixture.h"

namespace fetcher {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;
using Lines = std::vector<std::string>;

// ---- Sources
// -------------------------------------------------------------------------------------

TEST_F(FetcherTest, AMissingSourceFileIsNamed) {
  Start();
  daemon_.Open(0, 1, "nowhere", "x");
  EXPECT_EQ(daemon_.NextLine(),
            "cause 0," + daemon_.dir() + "/nowhere.json: No such file or directory");
  EXPECT_EQ(daemon_.NextLine(), "copen 0,-2");
}

TEST_F(FetcherTest, AMalformedSourceFileIsNamedWithWhatIsWrong) {
  SetSource({"ftp://h/"});
  Start();
  daemon_.Open(0, 1, "v", "x");
  EXPECT_EQ(daemon_.NextLine(),
            "cause 0," + daemon_.dir() +
                "/v.json: an origin is not http://, https://, s3://, oci:// or file:///");
  EXPECT_EQ(daemon_.NextLine(), "copen 0,-22");
}

TEST_F(FetcherTest, ASourceFileIsReadAgainAtEachOpen) {
  SetSource({"ftp://h/"});
  Start();
  daemon_.Open(0, 1, "v", "x");
  EXPECT_EQ(daemon_.LinesUntil("copen").back(), "copen 0,-22");
  ScriptedOrigin origin(body_);
  SetSource({origin.url()});
  daemon_.Open(1, 2, "v", "x");
  EXPECT_EQ(daemon_.LinesUntil("copen").back(), "copen 1,262144");
}

TEST_F(FetcherTest, KeysThatCouldLeaveTheOriginAreRefused) {
  SetSource({"file://" + daemon_.dir() + "/"});
  Start();
  for (const char* key : {"..", ".", "%2e%2e", "..%2fv.json", "a/b", "a%", "a?b", "a b", "a%00"}) {
    SCOPED_TRACE(key);
    daemon_.Open(0, 1, "v", key);
    EXPECT_THAT(daemon_.NextLine(), StartsWith("cause 0,"));
    EXPECT_EQ(daemon_.NextLine(), "copen 0,-22");
  }
}

// ---- Refused answers

TEST_F(FetcherTest, AnObjectIsClosedWhenItsOpenReplyIsRefused) {
  ScriptedOrigin origin(body_);
  SetSource({origin.url()});
  Start();
  daemon_.Refuse("copen 0", EINVAL);
  daemon_.Open(0, 1, "v", "x");
  daemon_.LinesUntil("copen");
  daemon_.Read(1, 1, 0, 4096);
  EXPECT_EQ(daemon_.NextLine(), "cause 1,the fetcher has not opened this object");
}

TEST_F(FetcherTest, AnObjectIsClosedWhenItsDigestIsRefused) {
  ScriptedOrigin origin("");
  const std::string digest =
      cachecore::DigestText(cachecore::BlockHasher::OfThisThread().OfFile(0, {}));
  SetSource({origin.url()}, R"(,"verity":")" + digest + '"');
  Start();
  daemon_.Refuse("verity", EINVAL);
  daemon_.Open(0, 1, "v", "x");
  daemon_.LinesUntil("copen");
  daemon_.Read(1, 1, 0, 4096);
  EXPECT_EQ(daemon_.NextLine(), "cause 1,the fetcher has not opened this object");
}

TEST_F(FetcherTest, AnOpenThatTheDaemonHasWithdrawnIsForgotten) {
  options_.fetch.open_retry_budget = Duration::zero();
  ScriptedOrigin origin(body_);
  origin.Always(Misbehaviour{.status = 503});
  SetSource({origin.url()});
  Start();
  daemon_.Refuse("cause 0", EINVAL);
  daemon_.Open(0, 1, "v", "x");
  EXPECT_THAT(daemon_.NextLine(), StartsWith("cause 0,"));
  daemon_.Read(1, 1, 0, 4096);
  EXPECT_EQ(daemon_.NextLine(), "cause 1,the fetcher has not opened this object");
}

// ---- File origins
// --------------------------------------------------------------------------------

class FetcherFileTest : public FetcherTest {
 protected:
  FetcherFileTest() {
    std::filesystem::create_directory(dir_);
    Write(body_);
    SetSource({"file://" + dir_ + "/"});
  }
  void Write(const std::string& bytes) {
    std::ofstream(dir_ + "/an image", std::ios::binary | std::ios::trunc) << bytes;
  }

  const std::string dir_ = daemon_.dir() + "/origin";
};

TEST_F(FetcherFileTest, AFileIsServedInPieces) {
  body_ = RandomBytes(3 * kMiB + 123);
  Write(body_);
  options_.connections = 1;
  Start();
  OpenObject("an%20image");
  daemon_.Read(1, 1, 0, body_.size());
  EXPECT_THAT(FinishRead("cread 1,1"),
              ElementsAre("filled 1,0,1048576", "filled 1,1048576,1048576",
                          "filled 1,2097152,1048576", "filled 1,3145728,123"));
  EXPECT_EQ(daemon_.Data(1, {0, body_.size()}), body_);
}

TEST_F(FetcherFileTest, AMissingFileIsENOENT) {
  Start();
  daemon_.Open(0, 1, "v", "absent");
  const std::string path = dir_ + "/absent";
  EXPECT_EQ(daemon_.NextLine(),
            "cause 0,file://" + path + ": " + path + ": No such file or directory");
  daemon_.LinesUntil("copen");
}

TEST_F(FetcherFileTest, ADirectoryIsNoObject) {
  std::filesystem::create_directory(dir_ + "/sub");
  Start();
  daemon_.Open(0, 1, "v", "sub");
  EXPECT_EQ(daemon_.LinesUntil("copen").back(), "copen 0,-21");
}

TEST_F(FetcherFileTest, AFileThatWasReplacedIsAnErrorThatNamesIt) {
  Start();
  OpenObject("an%20image");
  std::filesystem::rename(dir_ + "/an image", dir_ + "/old");
  Write(body_);
  daemon_.Read(1, 1, 0, 4096);
  EXPECT_THAT(daemon_.NextLine(), HasSubstr("/an%20image: changed since it was mounted"));
  EXPECT_EQ(daemon_.LinesUntil("cread").back(), "cread 1,1,116");
  EXPECT_EQ(daemon_.DataSize(1), 0u);
}

TEST_F(FetcherFileTest, ADataFileThatCannotBeWrittenFailsTheRead) {
  Start();
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const cachecore::UniqueFd reader(ends[0]), writer(ends[1]);  // Takes no offset.
  daemon_.Send(cachecore::wire::OpenMessage{{0}, {1}, "v", "an%20image", -1, ""}, writer.get());
  daemon_.LinesUntil("copen");
  daemon_.Read(1, 1, 0, 4096);
  EXPECT_EQ(daemon_.LinesUntil("cread").back(), "cread 1,1," + std::to_string(ESPIPE));
}

// ---- Attaching
// -----------------------------------------------------------------------------------

TEST_F(FetcherFileTest, ALostConnectionIsReplacedAndNothingOfTheOldOneIsAnswered) {
  ScriptedOrigin origin(body_);
  SetSource({origin.url()});
  Start();
  OpenObject();
  origin.Always(Misbehaviour{.stall = true});
  daemon_.Read(7, 1, 0, 4096);
  daemon_.WaitUntil([&] { return origin.requests().size() == 2; });
  EXPECT_EQ(daemon_.restores(), 1u);
  daemon_.Disconnect();
  origin.Always(std::nullopt);
  daemon_.Accept();
  daemon_.Open(8, 2, "v", "x");
  EXPECT_EQ(daemon_.LinesUntil("copen").back(), "copen 8,262144");
  daemon_.Read(9, 2, 0, 4096);
  EXPECT_THAT(FinishRead("cread 2,9"), ElementsAre("filled 2,0,4096"));
  EXPECT_EQ(daemon_.restores(), 2u);
}

TEST_F(FetcherTest, ABusyDaemonIsTriedAgain) {
  Launch();
  daemon_.Accept(Hello(-EBUSY));
  daemon_.Disconnect();
  daemon_.Accept();
  daemon_.WaitUntil([&] { return daemon_.restores() == 1; });
}

TEST_F(FetcherTest, ADaemonThatDoesNotAdmitUsEndsTheFetcher) {
  Launch();
  daemon_.Accept(Hello(-EPERM));
  const cachecore::Status& ended = WaitForEnd();
  EXPECT_EQ(ended.error(), EPERM);
  EXPECT_THAT(ended.message(), EndsWith("the daemon does not admit this user"));
}

TEST_F(FetcherTest, ADaemonOfAnotherVersionEndsTheFetcher) {
  Launch();
  daemon_.Accept(Hello(0, 2));
  EXPECT_EQ(WaitForEnd().error(), EPROTONOSUPPORT);
}

TEST_F(FetcherTest, BeingToldToStopIsSuccess) {
  Start();
  daemon_.WaitUntil([&] { return daemon_.restores() == 1; });
  Stop();
  EXPECT_TRUE(WaitForEnd().ok());
}

TEST_F(FetcherTest, ItStopsWhileNoDaemonIsThere) {
  options_.device = daemon_.dir() + "/absent.sock";
  Launch();
  Stop();
  EXPECT_TRUE(WaitForEnd().ok());
}

TEST_F(FetcherTest, GarbageFromTheDaemonEndsTheConnectionOnly) {
  Start();
  for (const std::string& garbage :
       {std::string("short"), std::string(9000, 'x'),
        cachecore::wire::EncodeMessage(cachecore::wire::ReplyMessage{77, {0}}, 0)}) {
    daemon_.SendBytes(garbage);
    daemon_.WaitForEnd();
    daemon_.Accept();
  }
  daemon_.Open(0, 1, "nowhere", "x");
  EXPECT_EQ(daemon_.LinesUntil("copen").back(), "copen 0,-2");
}

TEST_F(FetcherFileTest, AClosedObjectLetsItsDataFileGo) {
  Start();
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  const cachecore::UniqueFd reader(ends[0]);
  cachecore::UniqueFd writer(ends[1]);
  daemon_.Send(cachecore::wire::OpenMessage{{0}, {1}, "v", "an%20image", -1, ""}, writer.get());
  writer.Reset();
  daemon_.LinesUntil("copen");
  char byte;
  EXPECT_EQ(read(reader.get(), &byte, 1), -1);  // The fetcher holds the other end.
  daemon_.Send(cachecore::wire::CloseMessage{{1}, {1}});
  daemon_.WaitUntil([&] { return read(reader.get(), &byte, 1) == 0; });
}

}  // namespace
}  // namespace fetcher
