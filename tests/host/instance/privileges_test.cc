#include "host/instance/privileges.h"

#include <gtest/gtest.h>
#include <linux/capability.h>

namespace host {
namespace {

TEST(PrivilegesTest, AUserIsInAMapThatHoldsItsNumber) {
  EXPECT_TRUE(UidMapHas("         0          0 4294967295\n", 65534));
  EXPECT_TRUE(UidMapHas("0 1000 1\n", 0));
  EXPECT_FALSE(UidMapHas("0 1000 1\n", 65534));
  EXPECT_TRUE(UidMapHas("0 1000 1\n1 100000 65536\n", 65534));
  EXPECT_FALSE(UidMapHas("0 1000 1\n1 100000 65533\n", 65534));
  EXPECT_FALSE(UidMapHas("", 0));
}

TEST(PrivilegesTest, ACapabilityIsFoundAmongTheEffectiveOnes) {
  const char kAll[] = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\n";
  const char kWithoutMounting[] =
      "Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t000001ffffdfffff\n";
  EXPECT_TRUE(HasEffectiveCapability(kAll, CAP_SYS_ADMIN));
  EXPECT_FALSE(HasEffectiveCapability(kWithoutMounting, CAP_SYS_ADMIN));
  EXPECT_TRUE(HasEffectiveCapability(kWithoutMounting, CAP_CHOWN));
  EXPECT_TRUE(HasEffectiveCapability("Name:\tx\n", CAP_SYS_ADMIN));
}

}  // namespace
}  // namespace host
