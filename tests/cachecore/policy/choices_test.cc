#include "cachecore/policy/choices.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <vector>

#include "tests/cachecore/cache/scripted_store.h"

namespace cachecore {
namespace {

// What was committed is what the next one loads.
class ChoosingStore : public ScriptedStore {
 public:
  Result<std::vector<Choice>> LoadChoices() override { return choices; }
  Status Commit(const MetadataBatch& batch, Sync sync) override {
    EXPECT_EQ(sync, Sync::kYes);  // A power cut does not take it back.
    return ScriptedStore::Commit(batch, sync);
  }
  std::vector<Choice> choices;
};

LimitChange Change(const std::string& text) {
  const Result<LimitChange> change = ParseLimitChange(text);
  EXPECT_TRUE(change.ok()) << change.status().message();
  return *change;
}

TEST(ChoicesTest, ALimitIsASizeAPartNoneOrTheDefault) {
  EXPECT_FALSE(Change("").is_given);
  EXPECT_TRUE(Change("default").is_given);
  EXPECT_FALSE(Change("default").value.has_value());
  EXPECT_EQ(LimitText(*Change("none").value), "none");
  EXPECT_EQ(LimitText(*Change("80%").value), "80%");
  EXPECT_EQ(LimitText(*Change("2K").value), "2048");
  for (const char* text : {"much", "0%", "101%", "-1", "None"}) {
    EXPECT_EQ(ParseLimitChange(text).status().error(), EINVAL) << text;
  }
}

TEST(ChoicesTest, WhereNoneCanBeReadEveryObjectIsPinned) {
  class Unreadable : public ScriptedStore {
    Result<std::vector<Choice>> LoadChoices() override { return Status(EIO, "a bad block"); }
  } store;
  Choices choices(&store);
  choices.Load();
  EXPECT_TRUE(choices.IsPinned("v", "o"));
  EXPECT_EQ(choices.SetPinned("v", "o", false).error(), EIO);
  EXPECT_TRUE(choices.IsPinned("v", "o"));
  EXPECT_TRUE(store.batches.empty());
}

TEST(ChoicesTest, WhatIsChosenIsRecordedBeforeItCounts) {
  ChoosingStore store;
  Choices choices(&store);
  store.on_commit = [&](const MetadataBatch&) {
    EXPECT_FALSE(choices.limits().max.has_value());
    EXPECT_FALSE(choices.IsPinned("v", "o"));
  };
  ASSERT_TRUE(choices.ChangeLimits(Change("1K"), Change("5%")).ok());
  store.on_commit = nullptr;
  EXPECT_EQ(choices.limits().max->bytes, 1024u);
  EXPECT_EQ(choices.limits().min_free->percent, 5u);
  ASSERT_EQ(store.batches.size(), 1u);
  EXPECT_EQ(store.batches[0].put_choices,
            (std::vector<Choice>{{"cache_max", "1024"}, {"cache_min_free", "5%"}}));
  store.on_commit = [&](const MetadataBatch&) { EXPECT_FALSE(choices.IsPinned("v", "o/p")); };
  ASSERT_TRUE(choices.SetPinned("v", "o/p", true).ok());
  EXPECT_TRUE(choices.IsPinned("v", "o/p"));
  EXPECT_EQ(store.batches[1].put_choices.at(0).name, "pin v/o/p");
}

TEST(ChoicesTest, WhatCannotBeRecordedDoesNotCount) {
  ChoosingStore store;
  Choices choices(&store);
  ASSERT_TRUE(choices.SetPinned("v", "o", true).ok());
  store.trouble = Status(EROFS, "full");
  EXPECT_EQ(choices.ChangeLimits(Change("1K"), {}).error(), EROFS);
  EXPECT_FALSE(choices.limits().max.has_value());
  EXPECT_EQ(choices.SetPinned("v", "o", false).error(), EROFS);
  EXPECT_TRUE(choices.IsPinned("v", "o"));
  EXPECT_EQ(choices.SetPinned("v", "p", true).error(), EROFS);
  EXPECT_FALSE(choices.IsPinned("v", "p"));
}

TEST(ChoicesTest, WhatIsSoAlreadyIsNotRecordedAgain) {
  ChoosingStore store;
  Choices choices(&store);
  ASSERT_TRUE(choices.SetPinned("v", "o", false).ok());
  ASSERT_TRUE(choices.ChangeLimits({}, {}).ok());
  EXPECT_TRUE(store.batches.empty());
}

TEST(ChoicesTest, ALimitThatIsTakenBackLeavesNoRecord) {
  ChoosingStore store;
  store.choices = {{"cache_max", "1024"}};
  Choices choices(&store);
  choices.Load();
  ASSERT_TRUE(choices.ChangeLimits(Change("default"), {}).ok());
  EXPECT_FALSE(choices.limits().max.has_value());
  EXPECT_EQ(store.batches.at(0).erase_choices, std::vector<std::string>{"cache_max"});
}

TEST(ChoicesTest, ALaterDaemonFindsThemAndPassesOverDamage) {
  ChoosingStore store;
  store.choices = {{"cache_max", "none"},
                   {"cache_min_free", ""},
                   {"pin v/o/p", ""},
                   {"pin x", "1"},
                   {"of a later version", "1"}};
  Choices choices(&store);
  choices.Load();
  ASSERT_TRUE(choices.limits().max.has_value());
  EXPECT_EQ(choices.limits().max->bytes, 0u);
  EXPECT_FALSE(choices.limits().min_free.has_value());
  EXPECT_TRUE(choices.IsPinned("v", "o/p"));
  EXPECT_FALSE(choices.IsPinned("v", "o"));
}

}  // namespace
}  // namespace cachecore
