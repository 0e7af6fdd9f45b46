#include "cachecore/base/status.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <string>

namespace cachecore {
namespace {

Result<int> Half(int value) {
  if (value % 2 != 0) return Status(EINVAL, std::to_string(value) + " is odd");
  return value / 2;
}

Result<int> Quarter(int value) {
  ASSIGN_OR_RETURN(const int half, Half(value));
  ASSIGN_OR_RETURN(const int quarter, Half(half));
  return quarter;
}

Status CheckQuarter(int value) {
  RETURN_IF_ERROR(Quarter(value).status());
  return Status();
}

TEST(StatusTest, SuccessHasNoErrorAndTakesOnePointer) {
  const Status status;
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(status.error(), 0);
  EXPECT_EQ(status.message(), "success");
  EXPECT_EQ(sizeof(Status), sizeof(void*));
}

TEST(StatusTest, ContextIsPutInFrontAndKeepsTheErrno) {
  const Status status = Status::FromErrno(ENOENT, "open /x").WithContext("object 17");
  EXPECT_EQ(status.error(), ENOENT);
  EXPECT_EQ(status.message(), "object 17: open /x: No such file or directory");
  EXPECT_TRUE(Status().WithContext("object 17").ok());
}

TEST(StatusTest, ACopyIsIndependentOfItsOriginal) {
  Status original(EIO, "first");
  Status copy = original;
  original = Status(EPERM, "second");
  EXPECT_EQ(copy.error(), EIO);
  copy = original;
  EXPECT_EQ(copy.message(), "second");
  copy = Status();
  EXPECT_TRUE(copy.ok());
}

TEST(StatusTest, AnErrorIsDroppedOnlyOnPurpose) {
  const Status failed(EIO, "the disk");
  failed.IgnoreError("a test");
  EXPECT_EQ(failed.error(), EIO);
  Half(3).IgnoreError("a test");
  Half(2).IgnoreError("a test");
}

TEST(StatusDeathTest, AnErrorMustBeAnErrno) { EXPECT_DEATH(Status bad(0, "nothing"), "error > 0"); }

TEST(ResultTest, TheMacrosPassTheFirstErrorOnAndNothingElse) {
  EXPECT_EQ(*Quarter(12), 3);
  EXPECT_EQ(Quarter(6).status().message(), "3 is odd");
  EXPECT_TRUE(CheckQuarter(8).ok());
  EXPECT_EQ(CheckQuarter(7).error(), EINVAL);
}

TEST(ResultDeathTest, SuccessIsNoValue) {
  EXPECT_DEATH(Result<int> bad{Status()}, "Result without a value: success");
}

TEST(ResultDeathTest, AnErrorIsNotUsedAsAValue) {
  Result<std::string> failed(Status(EIO, "the disk"));
  const Result<std::string>& same = failed;
  EXPECT_DEATH((void)failed.value(), "Result without a value: the disk");
  EXPECT_DEATH((void)same->size(), "Result without a value: the disk");
  EXPECT_DEATH((void)*failed, "Result without a value: the disk");
  EXPECT_DEATH((void)std::move(failed).value(), "Result without a value: the disk");
}

TEST(ResultTest, CarriesATypeThatOnlyMoves) {
  Result<std::unique_ptr<int>> result(std::make_unique<int>(7));
  const std::unique_ptr<int> value = std::move(result).value();
  EXPECT_EQ(*value, 7);
}

}  // namespace
}  // namespace cachecore
