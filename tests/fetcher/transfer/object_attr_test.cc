#include "fetcher/transfer/object_attr.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace fetcher {
namespace {

TEST(ObjectAttrTest, SurvivesARoundTrip) {
  const ObjectAttr attr{12345, {{"http://a/", {"etag", "\"x\\y\""}}, {"http://b/", {}}}};
  const auto text = EncodeAttr(attr);
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(*text, R"({"pins":{"http://a/":{"etag":"\"x\\y\""},"http://b/":{}},"size":12345})");
  const auto decoded = DecodeAttr(*text);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->size_bytes, attr.size_bytes);
  EXPECT_EQ(decoded->pins, attr.pins);
}

TEST(ObjectAttrTest, LongOriginsArePinnedByTheirDigestAndOldAttrsAreRead) {
  const std::string url = "http://h/" + std::string(2000, 'x') + "/";
  EXPECT_EQ(PinName("http://h/x/"), "http://h/x/");
  EXPECT_EQ(PinName(url).size(), 71u);
  EXPECT_NE(PinName(url), PinName(url + "y/"));
  const auto old = DecodeAttr(R"({"size":1,"pins":{")" + url + R"(":{"etag":"e"}}})");
  ASSERT_TRUE(old.ok());
  EXPECT_EQ(old->pins.at(PinName(url)).value, "e");
}

TEST(ObjectAttrTest, WhatDoesNotFitIsAnErrorAndNotCut) {
  ObjectAttr attr{1, {}};
  for (int i = 0; i < 5; ++i) {
    attr.pins["http://" + std::to_string(i) + "/"] = {"etag", std::string(1000, 'e')};
  }
  EXPECT_EQ(EncodeAttr(attr).status().error(), E2BIG);
}

TEST(ObjectAttrTest, WhatIsNotOursIsRefused) {
  for (const char* bad :
       {"", "{", "[]", "{}", R"({"size":1})", R"({"size":-1,"pins":{}})",
        R"({"size":1.5,"pins":{}})", R"({"size":9223372036854775808,"pins":{}})",
        R"({"size":1,"pins":[]})", R"({"size":1,"pins":{"a":1}})",
        R"({"size":1,"pins":{"a":{"etag":1}}})", R"({"size":1,"pins":{"a":{"b":"","c":""}}})"}) {
    EXPECT_EQ(DecodeAttr(bad).status().error(), EBADMSG) << bad;
  }
}

TEST(ObjectAttrTest, AValidatorWithoutAKindIsNotThisFetchers) {
  EXPECT_EQ(DecodeAttr(R"({"pins":{"http://a/":{"":"x"}},"size":1})").status().error(), EBADMSG);
}

}  // namespace
}  // namespace fetcher
