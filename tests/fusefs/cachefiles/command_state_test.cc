// The text commands of the cachefiles device: each bad input, its errno, and that nothing changed.

#include "fusefs/cachefiles/command_state.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <vector>

namespace fusefs {
namespace {

namespace wire = cachecore::wire;

class Recorder : public CommandActions {
 public:
  int Bind(const std::string& directory, bool ondemand) override {
    Note("bind " + directory + (ondemand ? " ondemand" : ""));
    return result;
  }
  int Copen(const wire::CopenCommand& command) override {
    Note("copen " + std::to_string(command.msg_id.value) + "," + std::to_string(command.size) +
         "," + std::to_string(command.error));
    return result;
  }
  int Restore() override {
    Note("restore");
    return result;
  }
  int Cull(const std::string& name) override {
    Note("cull " + name);
    return result;
  }
  int InUse(const std::string& name) override {
    Note("inuse " + name);
    return result;
  }
  void Note(const std::string& action) { actions.push_back(action); }

  std::vector<std::string> actions;
  int result = 0;
};

class CommandStateTest : public ::testing::Test {
 protected:
  // The result of one write; a positive one must be the size of the text.
  int Write(const std::string& text) {
    const int64_t result = state_.Execute(text, &recorder_);
    if (result < 0) return static_cast<int>(result);
    EXPECT_EQ(result, static_cast<int64_t>(text.size())) << text;
    return 0;
  }
  void Bind(const std::string& mode) {
    ASSERT_EQ(Write("dir /c"), 0);
    ASSERT_EQ(Write("bind" + mode), 0);
    recorder_.actions.clear();
  }

  struct Row {
    std::string text;
    int result;
  };
  void ExpectRows(const std::vector<Row>& rows) {
    for (const Row& row : rows) EXPECT_EQ(Write(row.text), row.result) << "\"" << row.text << "\"";
  }

  CommandState state_;
  Recorder recorder_;
};

TEST_F(CommandStateTest, TheNextDaemonGoesOnWithItsText) {
  ExpectRows(
      {{"frun 60%", 0}, {"fcull 50%", 0}, {"bstop 4%", 0}, {"dir /a b 7 -1", 0}, {"tag 3 x", 0}});
  ASSERT_EQ(Write("bind ondemand"), 0);
  const std::string text = state_.Text();
  CommandState next;
  EXPECT_FALSE(next.SetText("nonsense"));
  EXPECT_FALSE(next.is_bound());
  ASSERT_TRUE(next.SetText(text));
  EXPECT_EQ(next.Text(), text);
  EXPECT_TRUE(next.is_bound() && next.is_ondemand());
  EXPECT_EQ(next.file_limits().run, 60u);
  EXPECT_EQ(next.file_limits().cull, 50u);
  EXPECT_EQ(next.block_limits().stop, 4u);
  EXPECT_EQ(next.Execute("dir /c", &recorder_), -EEXIST);
  EXPECT_EQ(next.Execute("tag t", &recorder_), -EEXIST);
  ASSERT_TRUE(next.SetText(CommandState().Text()));
  EXPECT_EQ(next.Execute("tag t", &recorder_), 5);
  ASSERT_TRUE(next.SetText(""));
  EXPECT_EQ(next.Execute("tag t", &recorder_), 5);
}

TEST_F(CommandStateTest, ALimitThatComesAfterBindHasNoEffect) {
  ExpectRows({{"brun 60%", 0}, {"dir /d", 0}, {"bind", 0}, {"brun 70%", 0}, {"bcull 65%", 0}});
  EXPECT_EQ(state_.block_limits().run, 60u);
  CommandState next;
  ASSERT_TRUE(next.SetText(state_.Text()));
  EXPECT_EQ(next.block_limits().run, 60u);
  EXPECT_EQ(next.Execute("bstop 64%", &recorder_), 9) << "it is judged by the last ones";
}

TEST_F(CommandStateTest, TheTextOfAVersionWithOneSetOfLimitsIsRead) {
  CommandState next;
  ASSERT_TRUE(next.SetText("60 50 1 7 5 1 1 0 2 /d1 t"));
  EXPECT_TRUE(next.is_bound());
  EXPECT_EQ(next.directory(), "/d");
  EXPECT_EQ(next.tag(), "t");
  EXPECT_EQ(next.file_limits().run, 60u);
}

TEST_F(CommandStateTest, TheTextIsJudgedBeforeTheCommand) {
  ExpectRows({
      {std::string(4096, 'x'), -EOPNOTSUPP},
      {std::string(4096, '\0'), -EOPNOTSUPP},
      {std::string("tag a\0b", 7), -EINVAL},
      {std::string("nonsense\0", 9), -EINVAL},
      {"\n", -EINVAL},
      {"\ntag a", -EINVAL},
      {"", -EOPNOTSUPP},
      {" tag a", -EOPNOTSUPP},
      {"\ttag a", -EOPNOTSUPP},
      {"nonsense", -EOPNOTSUPP},
      {"TAG a", -EOPNOTSUPP},
      {"tags a", -EOPNOTSUPP},
      {"ta", -EOPNOTSUPP},
      {"run 8%", -EOPNOTSUPP},
      {"f", -EOPNOTSUPP},
      {"frunx 8%", -EOPNOTSUPP},
      {"tag\xa0"
       "a",
       0},
  });
  EXPECT_TRUE(recorder_.actions.empty());
}

TEST_F(CommandStateTest, TheFirstNewlineEndsTheCommand) {
  EXPECT_EQ(Write("dir /a\nbind nonsense"), 0);
  EXPECT_EQ(Write("bind ondemand\n"), 0);
  EXPECT_EQ(recorder_.actions, std::vector<std::string>{"bind /a ondemand"});
}

TEST_F(CommandStateTest, TrailingWhiteSpaceBelongsToTheArgument) {
  EXPECT_EQ(Write("dir  \t /x "), 0);
  EXPECT_EQ(Write("bind ondemand "), -EINVAL);
  EXPECT_EQ(Write("bind"), 0);
  EXPECT_EQ(recorder_.actions, std::vector<std::string>{"bind /x "});
}

TEST_F(CommandStateTest, ALimitIsCheckedAgainstItsNeighbours) {
  ExpectRows({
      {"frun", -EINVAL},
      {"frun 8", -EINVAL},
      {"frun 8%%", -EINVAL},
      {"frun 8% ", -EINVAL},
      {"frun x%", -EINVAL},
      {"frun 0x8%", -EINVAL},
      {"frun +8%", -EINVAL},
      {"frun -8%", -EINVAL},
      {"frun %", -EINVAL},
      {"frun 5%", -EINVAL},
      {"frun 100%", -EINVAL},
      {"fcull 7%", -EINVAL},
      {"fcull 1%", -EINVAL},
      {"fstop 5%", -EINVAL},
      {"frun 99999999999999999999%", -EINVAL},
  });
  EXPECT_EQ(state_.file_limits().run, 7u);
  EXPECT_EQ(state_.file_limits().cull, 5u);
  EXPECT_EQ(state_.file_limits().stop, 1u);
  ExpectRows(
      {{"frun 99%", 0}, {"fcull 98%", 0}, {"fstop 97%", 0}, {"fstop 0%", 0}, {"fstop %", 0}});
  EXPECT_EQ(state_.file_limits().run, 99u);
  EXPECT_EQ(state_.block_limits().run, 7u);
  ExpectRows({{"brun 50%", 0}, {"bcull 007%", 0}, {"bstop 6%", 0}, {"bcull 6%", -EINVAL}});
  EXPECT_EQ(state_.block_limits().cull, 7u);
}

TEST_F(CommandStateTest, DirectoryAndTagAreSetOnce) {
  ExpectRows({{"dir", -EINVAL}, {"dir ", -EINVAL}, {"dir /nowhere", 0}, {"dir /b", -EEXIST}});
  ExpectRows({{"tag", -EINVAL}, {"tag t", 0}, {"tag u", -EEXIST}});
}

TEST_F(CommandStateTest, BindSetsTheTagThatIsMissing) {
  Bind("");
  EXPECT_EQ(Write("tag t"), -EEXIST);
}

TEST_F(CommandStateTest, SecctxAndDebug) {
  ExpectRows({{"secctx", -EINVAL}, {"secctx a:b:c", -EOPNOTSUPP}, {"secctx a:b:c", -EOPNOTSUPP}});
  ExpectRows({{"debug", 0},
              {"debug 7", 0},
              {"debug 0x1F", 0},
              {"debug 017", 0},
              {"debug 08", -EINVAL},
              {"debug 0x", -EINVAL},
              {"debug 7 ", -EINVAL},
              {"debug -1", -EINVAL},
              {"debug x", -EINVAL}});
}

TEST_F(CommandStateTest, BindChecksInOrder) {
  EXPECT_EQ(Write("bind nonsense"), -EINVAL);
  EXPECT_EQ(Write("bind ondemand"), -EINVAL) << "no dir";
  EXPECT_FALSE(state_.is_ondemand());
  EXPECT_EQ(Write("dir /c"), 0);
  EXPECT_EQ(Write("bind nonsense"), -EINVAL);
  EXPECT_TRUE(recorder_.actions.empty());
  recorder_.result = -ENOENT;
  EXPECT_EQ(Write("bind ondemand"), -ENOENT);
  EXPECT_FALSE(state_.is_bound());
  recorder_.result = 0;
  EXPECT_EQ(Write("bind ondemand"), 0);
  EXPECT_EQ(Write("bind ondemand"), -EBUSY);
  EXPECT_EQ(Write("bind nonsense"), -EBUSY);
}

TEST_F(CommandStateTest, AFailedBindLeavesTheModeOn) {
  EXPECT_EQ(Write("copen 1,1"), -EOPNOTSUPP);
  EXPECT_EQ(Write("copen"), -EOPNOTSUPP);
  EXPECT_EQ(Write("restore"), -EOPNOTSUPP);
  EXPECT_EQ(Write("dir /c"), 0);
  recorder_.result = -ENOENT;
  EXPECT_EQ(Write("bind ondemand"), -ENOENT);
  EXPECT_EQ(Write("copen"), -EINVAL);
  recorder_.result = 0;
  EXPECT_EQ(Write("restore"), 0);
}

TEST_F(CommandStateTest, OnDemandCommandsNeedTheMode) {
  Bind("");
  ExpectRows({{"copen 1,1", -EOPNOTSUPP}, {"restore", -EOPNOTSUPP}});
  EXPECT_TRUE(recorder_.actions.empty());
}

TEST_F(CommandStateTest, CopenIsParsedAsTheKernelDoes) {
  Bind(" ondemand");
  ExpectRows({{"copen", -EINVAL},
              {"copen 5", -EINVAL},
              {"copen ,", -EINVAL},
              {"copen ,5", -EINVAL},
              {"copen x,5", -EINVAL},
              {"copen 08,5", -EINVAL},
              {"copen 5 ,5", -EINVAL},
              {"copen -1,5", -EINVAL},
              {"copen 4294967296,5", -EINVAL},
              {"copen 99999999999999999999,5", -ERANGE}});
  EXPECT_TRUE(recorder_.actions.empty());
  ExpectRows({{"copen 0x10,0x10", 0},
              {"copen 010,010", 0},
              {"copen +7,-2", 0},
              {"copen 7,-4095", 0},
              {"copen 7,-4096", 0},
              {"copen 7,", 0},
              {"copen 7,1 ", 0},
              {"copen 7,9223372036854775807", 0},
              {"copen 7,9223372036854775808", 0}});
  EXPECT_EQ(recorder_.actions,
            (std::vector<std::string>{
                "copen 16,16,0", "copen 8,8,0", "copen 7,-2,0", "copen 7,-4095,0", "copen 7,0,22",
                "copen 7,0,22", "copen 7,0,22", "copen 7,9223372036854775807,0", "copen 7,0,34"}))
      << "a bad size completes the OPEN with its error";
}

TEST_F(CommandStateTest, CullAndInUse) {
  ExpectRows({{"cull a/b", -EINVAL}, {"inuse a/b", -EINVAL}, {"cull a", -EIO}, {"inuse a", -EIO}});
  EXPECT_TRUE(recorder_.actions.empty());
  Bind(" ondemand");
  ExpectRows({{"cull a/b", -EINVAL}, {"cull a", 0}, {"inuse b ", 0}});
  EXPECT_EQ(recorder_.actions, (std::vector<std::string>{"cull a", "inuse b "}));
  recorder_.result = -EBUSY;
  EXPECT_EQ(Write("inuse b"), -EBUSY);
}

}  // namespace
}  // namespace fusefs
