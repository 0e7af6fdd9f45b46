#include "host/images/image_source.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "cachecore/values/limits.h"

namespace host {
namespace {

std::string ErrorOf(const std::string& url) {
  const auto parsed = ParseImageUrl(url);
  EXPECT_FALSE(parsed.ok()) << url;
  return parsed.ok() ? "" : parsed.status().message();
}

ImageSource Source(const std::vector<std::string>& urls) {
  const auto source = MakeImageSource(urls, {});
  EXPECT_TRUE(source.ok()) << source.status().message();
  return source.ok() ? *source : ImageSource{{ImageUrl{}}, {}};
}

TEST(ParseImageUrlTest, SplitsBaseObjectAndQuery) {
  const auto url = ParseImageUrl("http://example.com:8080/a/b/image.erofs?sig=1&x=/y");
  ASSERT_TRUE(url.ok()) << url.status().message();
  EXPECT_EQ(url->base, "http://example.com:8080/a/b/");
  EXPECT_EQ(url->object, "image.erofs");
  EXPECT_EQ(url->query, "?sig=1&x=/y");
  EXPECT_EQ(url->Public(), "http://example.com:8080/a/b/image.erofs");
}

TEST(ParseImageUrlTest, LengthsUpToTheFetchersLimitsAreTakenAndMoreIsRefusedWithTheLimit) {
  const std::string head = "http://[::1]:8080/";
  const std::string longest =
      head + std::string(cachecore::kUrlBytesMax - head.size() - 2, 'p') + "/x";
  const std::string query = "?" + std::string(cachecore::kQueryBytesMax - 1, 'q');
  EXPECT_TRUE(ParseImageUrl(longest + query).ok());
  const std::string url_error = ParseImageUrl(longest + "x").status().message();
  EXPECT_TRUE(url_error.ends_with("is a URL of 16385 bytes; at most 16384 fit")) << url_error;
  EXPECT_LE(url_error.size(), 600u);
  const std::string query_error = ParseImageUrl("http://h/x" + query + "q").status().message();
  EXPECT_EQ(query_error, "'http://h/x' has a query of 16385 bytes; at most 16384 fit");
}

TEST(ParseImageUrlTest, WritesSchemeHostAndPortInOneWay) {
  EXPECT_EQ(ParseImageUrl("HTTP://Example.COM:80/Dir/X")->Public(), "http://example.com/Dir/X");
  EXPECT_EQ(ParseImageUrl("https://h:0443/x")->Public(), "https://h/x");
  EXPECT_EQ(ParseImageUrl("https://h:80/x")->Public(), "https://h:80/x");
  EXPECT_EQ(ParseImageUrl("http://[::1]:8080/x")->Public(), "http://[::1]:8080/x");
  EXPECT_EQ(ParseImageUrl("http://[FE80::1%25Eth0]:80/x")->Public(), "http://[fe80::1%25Eth0]/x");
  EXPECT_EQ(ParseImageUrl("http://127.1:0080/x")->Public(), "http://127.0.0.1/x");
  EXPECT_EQ(ParseImageUrl("http://[0:0:0:0:0:0:0:1]/x")->Public(), "http://[::1]/x");
  EXPECT_EQ(ParseImageUrl("file:///x")->Public(), "file:///x");
  EXPECT_EQ(ParseImageUrl("file://localhost/d/x")->Public(), "file:///d/x");
}

TEST(ParseImageUrlTest, KeepsTheObjectPercentEncoded) {
  EXPECT_EQ(ParseImageUrl("http://h/d/a%20b%2Fc")->object, "a%20b%2Fc");
}

TEST(ParseImageUrlTest, RefusesWhatIsNoImageUrlAndSaysWhy) {
  for (const char* url : {"ftp://h/x", "/some/file"}) {
    EXPECT_EQ(ErrorOf(url), "'" + std::string(url) +
                                "' is not an image URL; use http://, https://, s3://BUCKET/KEY, "
                                "file:///path, oci:// or oci-layout:");
  }
  EXPECT_EQ(ErrorOf("http://h"), "'http://h' names no file: its path must end in the image's name");
  EXPECT_EQ(ErrorOf("http://h/d/?x"),
            "'http://h/d/' names no file: its path must end in the image's name");
  EXPECT_EQ(ErrorOf("http://h/d/.."), "'http://h/d/..' names no file: it ends in '..'");
  EXPECT_EQ(ErrorOf("http://h/a b"),
            "'http://h/a b' has a space or another character that must be percent-encoded");
  EXPECT_EQ(ErrorOf("http://h/x#part"),
            "'http://h/x#part' has a fragment ('#'), which names nothing on an origin");
  EXPECT_EQ(ErrorOf("file://elsewhere/x"),
            "'file://elsewhere/x' names a host; a file URL is file:///path");
  EXPECT_EQ(ErrorOf("file:///x?y"),
            "'file:///x' was given with a query, which files don't have; a '?' in a file's name is "
            "written %3F");
  for (const char* url : {"http:///x", "http://h:0/x", "http://h:99999/x", "http://h:8x/x",
                          "http://h!/x", "http://[::1/x", "http://[g]/x"}) {
    EXPECT_EQ(ErrorOf(url), "'" + std::string(url) + "' has no valid host and port");
  }
}

TEST(ParseImageUrlTest, TakesAnS3UrlApart) {
  const auto url = ParseImageUrl("S3://My.Bucket-1/a/b%20c/image.erofs");
  ASSERT_TRUE(url.ok()) << url.status().message();
  EXPECT_EQ(url->base, "s3://My.Bucket-1/a/b%20c/");
  EXPECT_EQ(url->object, "image.erofs");
  EXPECT_EQ(ParseImageUrl("s3://bucket/x")->base, "s3://bucket/");
}

TEST(ParseImageUrlTest, RefusesAnS3UrlWithoutBucketOrKey) {
  EXPECT_EQ(ErrorOf("s3:///x"), "'s3:///x' has no valid bucket; it is s3://BUCKET/KEY");
  EXPECT_EQ(ErrorOf("s3://b@d/x"), "'s3://d/x' has no valid bucket; it is s3://BUCKET/KEY");
  EXPECT_EQ(ErrorOf("s3://bucket"), "'s3://bucket' has no key; it is s3://BUCKET/KEY");
  EXPECT_EQ(ErrorOf("s3://bucket/"), "'s3://bucket/' has no key; it is s3://BUCKET/KEY");
  EXPECT_EQ(ErrorOf("s3://bucket/d/"),
            "'s3://bucket/d/' names no file: its path must end in the image's name");
  EXPECT_EQ(ErrorOf("s3://bucket/x?versionId=1"),
            "'s3://bucket/x' was given with a query, which s3:// URLs don't have");
}

TEST(ParseImageUrlTest, NeverQuotesAPasswordOrAQuery) {
  const std::string error = ErrorOf("http://user:secret@h/x?token=hidden");
  EXPECT_NE(error.find("'http://h/x' was given with a user name or password"), std::string::npos);
  EXPECT_EQ(error.find("secret"), std::string::npos);
  EXPECT_EQ(ErrorOf("http://user:secret@h/a b").find("secret"), std::string::npos);
  EXPECT_EQ(ErrorOf("ftp://h/x?token=hidden").find("hidden"), std::string::npos);
}

TEST(ParseImageUrlTest, ObjectNamesFitTheirLimit) {
  EXPECT_TRUE(ParseImageUrl("http://h/" + std::string(kObjectNameBytesMax, 'a')).ok());
  EXPECT_NE(ErrorOf("http://h/" + std::string(kObjectNameBytesMax + 1, 'a')).find("253 bytes"),
            std::string::npos);
}

TEST(VolumeNameTest, IsReadableAndStable) {
  EXPECT_EQ(Source({"http://example.com:8080/a/b/image.erofs"}).Volume(),
            "example.com_8080_a_b-dde5e9b112c816433e9c0b5b434c9be1");
}

TEST(VolumeNameTest, DiffersBetweenObjectsOfOneDirectory) {
  EXPECT_NE(Source({"http://h/d/x"}).Volume(), Source({"http://h/d/y"}).Volume());
  EXPECT_NE(Source({"http://h/d/x"}).Volume(), Source({"https://h/d/x"}).Volume());
}

TEST(VolumeNameTest, IgnoresSignaturesAndTheOrderOfOrigins) {
  EXPECT_EQ(Source({"http://h/x?sv=1&sig=1"}).Volume(), Source({"http://h/x?sv=1&sig=2"}).Volume());
  EXPECT_EQ(Source({"http://h/x?sv=1&sig=1"}).Volume(), Source({"http://h/x"}).Volume());
  const std::string one = Source({"http://a/x", "http://b/x"}).Volume();
  const std::string other = Source({"http://b/x", "http://a/x"}).Volume();
  EXPECT_EQ(one.substr(one.rfind('-')), other.substr(other.rfind('-')));
}

TEST(VolumeNameTest, DiffersByWhatSelectsContent) {
  const std::string plain = Source({"http://h/x"}).Volume();
  const std::string one = Source({"http://h/x?versionId=1"}).Volume();
  EXPECT_NE(one, plain);
  EXPECT_NE(one, Source({"http://h/x?versionId=2"}).Volume());
  ImageSource by_path = Source({"http://h/x?versionId=1"});
  by_path.path_is_identity = true;
  EXPECT_EQ(by_path.Volume(), plain);
  ImageSource by_header = Source({"http://h/x"});
  by_header.headers = "accept: a/b\n";
  EXPECT_NE(by_header.Volume(), plain);
}

TEST(CompareSourcesTest, TellsASignatureFromAccess) {
  const auto json = [](const std::vector<std::string>& urls) { return Source(urls).ToJson(); };
  const auto in_use = json({"http://a/x?sig=1", "http://b/x?sig=1"});
  EXPECT_EQ(CompareSources(in_use, in_use), SourceChange::kNone);
  EXPECT_EQ(CompareSources(in_use, json({"http://b/x?sig=1", "http://a/x?sig=1"})),
            SourceChange::kNone);
  EXPECT_EQ(CompareSources(in_use, json({"http://a/x?sig=2", "http://b/x?sig=2"})),
            SourceChange::kSignature);
  EXPECT_EQ(CompareSources(in_use, json({"http://a/x?sig=1"})), SourceChange::kAccess);
  auto by_proxy = in_use;
  by_proxy["proxy"] = {{"http", "http://p:1"}};  // A way; the mount that is there keeps its own.
  EXPECT_EQ(CompareSources(in_use, by_proxy), SourceChange::kNone);
  auto with_headers = in_use;
  with_headers["headers_file"] = "/h";
  EXPECT_EQ(CompareSources(in_use, with_headers), SourceChange::kAccess);
}

TEST(VolumeNameTest, IsAFileNameThatFitsAndIsNotHidden) {
  const std::string name = Source({"http://h/" + std::string(300, 'd') + "/%7e;~!/x"}).Volume();
  EXPECT_EQ(name.size(), 80u + 33u);
  EXPECT_EQ(name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_-."), std::string::npos);
  EXPECT_EQ(Source({"http://../x"}).Volume().front(), '_');
}

TEST(MakeImageSourceTest, WritesWhatTheFetcherReads) {
  const ImageSource source = Source({"http://a/d/x?q", "http://b/e/x?q", "http://a/d/x?q"});
  EXPECT_EQ(source.ToJson().dump(),
            R"({"origins":["http://a/d/","http://b/e/"],"query":"?q","version":1})");
}

TEST(MakeImageSourceTest, RefusesOriginsOfDifferentNames) {
  const auto source = MakeImageSource({"http://a/x?secret", "http://b/y"}, {});
  ASSERT_FALSE(source.ok());
  EXPECT_EQ(source.status().error(), EINVAL);
  EXPECT_EQ(source.status().message(),
            "the origins http://a/x and http://b/y must end in the same file name and query");
}

TEST(MakeImageSourceTest, RefusesACaFileThatIsNotThere) {
  OriginAccess access;
  access.ca_file = "/nowhere/ca.pem";
  const auto source = MakeImageSource({"https://a/x"}, access);
  ASSERT_FALSE(source.ok());
  EXPECT_EQ(source.status().message(), "CA file /nowhere/ca.pem: No such file or directory");
}

}  // namespace
}  // namespace host
