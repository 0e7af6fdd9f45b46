// ObjectNames: names of objects in memory, and the successors that have none yet.

#include "cachecore/cache/object_names.h"

#include <gtest/gtest.h>

namespace cachecore {
namespace {

constexpr ObjectNumber kVolume{1}, kOther{2};
constexpr ObjectNumber kFirst{16}, kSecond{17};

TEST(ObjectNamesTest, ANameIsAVolumeAndACookie) {
  ObjectNames names;
  names.Set(kVolume, "object", kFirst);
  names.Set(kOther, "object", kSecond);
  EXPECT_EQ(names.Find(kVolume, "object"), kFirst);
  EXPECT_EQ(names.Find(kOther, "object"), kSecond);
  EXPECT_EQ(names.Find(kVolume, "objects"), std::nullopt);
  names.Remove(kVolume, "object");
  EXPECT_EQ(names.Find(kVolume, "object"), std::nullopt);
  EXPECT_EQ(names.Find(kOther, "object"), kSecond);
}

TEST(ObjectNamesTest, ACookieMayHaveAnyByte) {
  ObjectNames names;
  names.Set(ObjectNumber{1}, "1/x", kFirst);
  EXPECT_EQ(names.Find(ObjectNumber{11}, "x"), std::nullopt);
  EXPECT_EQ(names.Find(ObjectNumber{1}, "1"), std::nullopt);
  EXPECT_EQ(names.Find(ObjectNumber{1}, std::string("1/x\0", 4)), std::nullopt);
}

TEST(ObjectNamesTest, AnObjectThatIsForgottenLosesItsName) {
  ObjectNames names;
  names.Set(kVolume, "object", kFirst);
  names.Forget({kFirst, kVolume, "object"});
  EXPECT_EQ(names.Find(kVolume, "object"), std::nullopt);
}

TEST(ObjectNamesTest, ANameThatASuccessorHasTakenStays) {
  ObjectNames names;
  names.Set(kVolume, "object", kFirst);
  names.SetSuccessor(kFirst, kSecond);
  EXPECT_EQ(names.FindSuccessor(kFirst), kSecond);
  names.Set(kVolume, "object", kSecond);
  names.Forget({kFirst, kVolume, "object"});
  EXPECT_EQ(names.Find(kVolume, "object"), kSecond);
}

TEST(ObjectNamesTest, ASuccessorThatIsForgottenLeavesTheNameToTheKnownObject) {
  ObjectNames names;
  names.Set(kVolume, "object", kFirst);
  names.SetSuccessor(kFirst, kSecond);
  names.Forget({kSecond, kVolume, "object"});
  EXPECT_EQ(names.FindSuccessor(kFirst), std::nullopt);
  EXPECT_EQ(names.Find(kVolume, "object"), kFirst);
}

}  // namespace
}  // namespace cachecore
