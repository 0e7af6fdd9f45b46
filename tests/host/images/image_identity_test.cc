#include "host/images/image_identity.h"

#include <gtest/gtest.h>

namespace host {
namespace {

TEST(ImageIdentityTest, DropsCompleteSignaturesOnly) {
  const struct {
    const char* query;
    const char* left;
  } kCases[] = {
      {"", ""},
      {"?", ""},
      {"?versionId=1", "?versionId=1"},
      {"?a=1&a=2&b", "?a=1&a=2&b"},
      {"?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=k%2F2&X-Amz-Date=d&X-Amz-Expires=60"
       "&X-Amz-SignedHeaders=host&X-Amz-Security-Token=t&x-id=GetObject&X-Amz-Signature=5",
       ""},
      {"?versionId=7&X-Amz-Algorithm=a&X-Amz-Credential=c&X-Amz-Date=d&X-Amz-Signature=s",
       "?versionId=7"},
      {"?X-Amz-Date=d&X-Amz-Expires=60", "?X-Amz-Date=d&X-Amz-Expires=60"},
      {"?AWSAccessKeyId=k&Signature=s&Expires=1&versionId=2", "?versionId=2"},
      {"?Signature=s&Expires=1", "?Signature=s&Expires=1"},
      {"?X-Goog-Algorithm=a&X-Goog-Credential=c&X-Goog-Date=d&X-Goog-Expires=9"
       "&X-Goog-SignedHeaders=host&X-Goog-Signature=s&generation=5",
       "?generation=5"},
      {"?GoogleAccessId=g&Expires=1&Signature=s", ""},
      {"?sv=2022&sr=b&sp=r&st=1&se=2&spr=https&skoid=o&sktid=t&skt=1&ske=2&sks=b&skv=v&sig=x", ""},
      {"?snapshot=2020&sv=2022&sp=r&sig=x", "?snapshot=2020"},
      {"?sv=1&sr=b", "?sv=1&sr=b"},
      {"?Expires=1&Signature=s&Key-Pair-Id=k", ""},
      {"?v=3&Policy=p&Signature=s&Key-Pair-Id=k", "?v=3"},
      {"?x-amz-signature=1&x-amz-date=2", "?x-amz-signature=1&x-amz-date=2"},
  };
  for (const auto& c : kCases) EXPECT_EQ(IdentityOfQuery(c.query), c.left) << c.query;
}

TEST(ImageIdentityTest, KeepsHeadersThatAreNoCredentials) {
  EXPECT_EQ(IdentityOfHeaders(""), "");
  EXPECT_EQ(IdentityOfHeaders("# x\nAuthorization: Bearer a\r\n\nCOOKIE: b\n"), "");
  EXPECT_EQ(IdentityOfHeaders("X-Version: 2\r\nauthorization: a\nAccept: A/b"),
            "accept: A/b\nx-version: 2\n");
}

}  // namespace
}  // namespace host
