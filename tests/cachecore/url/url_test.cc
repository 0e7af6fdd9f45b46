#include "cachecore/url/url.h"

#include <gtest/gtest.h>

#include <string>

namespace cachecore {
namespace {

Url Parsed(const std::string& text) {
  const std::optional<Url> url = ParseUrl(text);
  EXPECT_TRUE(url.has_value()) << text;
  return url.value_or(Url());
}

TEST(ParseUrlTest, GivesEachPart) {
  const Url url = Parsed("HTTPS://User:p%40ss@Example.COM:8443/A/%2f/x?q=/1?&y#z?");
  EXPECT_EQ(url.scheme, "https");
  EXPECT_TRUE(url.has_user);
  EXPECT_EQ(url.user, "User");
  EXPECT_EQ(url.password, "p@ss");
  EXPECT_EQ(url.authority, "Example.COM:8443");
  EXPECT_EQ(url.host, "example.com");
  EXPECT_EQ(url.port, "8443");
  EXPECT_FALSE(url.has_default_port);
  EXPECT_EQ(url.path, "/A/%2f/x");
  EXPECT_EQ(url.query, "?q=/1?&y");
  EXPECT_EQ(url.fragment, "#z?");
  EXPECT_EQ(url.Place(), "https://Example.COM:8443");
  EXPECT_EQ(url.CanonicalAuthority(), "example.com:8443");
}

TEST(ParseUrlTest, PartsThatAreNotThereAreEmpty) {
  const Url url = Parsed("http://h");
  EXPECT_FALSE(url.has_user);
  EXPECT_EQ(url.path + url.query + url.fragment + url.user + url.password, "");
  EXPECT_EQ(url.port, "80");
  EXPECT_TRUE(url.has_default_port);
  EXPECT_EQ(Parsed("http://h?x/y").query, "?x/y");
  EXPECT_EQ(Parsed("http://h#x").fragment, "#x");
  EXPECT_EQ(Parsed("http://h/a/../b/./c").path, "/a/../b/./c");
  EXPECT_TRUE(Parsed("http://@h/").has_user);
}

TEST(ParseUrlTest, HostsAndPortsHaveOneSpelling) {
  EXPECT_EQ(Parsed("http://H:080/").CanonicalAuthority(), "h");
  EXPECT_EQ(Parsed("https://h:443").CanonicalAuthority(), "h");
  EXPECT_EQ(Parsed("https://h:80").CanonicalAuthority(), "h:80");
  EXPECT_EQ(Parsed("http://[FE80::1]:65535/").CanonicalAuthority(), "[fe80::1]:65535");
  const Url zone = Parsed("http://[fe80::1%25Eth0]/x");
  EXPECT_EQ(zone.host, "[fe80::1%25Eth0]");
  EXPECT_EQ(zone.authority, "[fe80::1%25Eth0]");
  EXPECT_TRUE(Parsed("http://h:80/a").IsSamePlace(Parsed("HTTP://u@H/b")));
  EXPECT_FALSE(Parsed("http://h/").IsSamePlace(Parsed("https://h/")));
  EXPECT_FALSE(Parsed("http://h/").IsSamePlace(Parsed("http://h:81/")));
  EXPECT_FALSE(Url().IsSamePlace(Url()));
}

TEST(ParseUrlTest, OtherSchemesKeepTheirNamesAsWritten) {
  const Url bucket = Parsed("s3://My.Bucket-1/a%20b/");
  EXPECT_EQ(bucket.authority, "My.Bucket-1");
  EXPECT_EQ(bucket.port, "");
  EXPECT_EQ(Parsed("s3://12345/x").authority, "12345") << "a bucket, not an address";
  EXPECT_EQ(Parsed("oci+http://[::1]:5000/a/b/").authority, "[::1]:5000");
  EXPECT_EQ(Parsed("oci-blob://h/a@sha256:0").path, "/a@sha256:0");
  EXPECT_EQ(Parsed("file:///a%20b/@").path, "/a%20b/@");
  EXPECT_EQ(Parsed("file://localhost/x").path, "/x");
}

TEST(ParseUrlTest, RefusesWhatIsNoUrl) {
  const std::string with_nul("http://h\0/x", 11);
  for (const std::string& text : {std::string(),
                                  std::string("h"),
                                  std::string("/a/b"),
                                  std::string("h:80"),
                                  std::string("http:/h/x"),
                                  std::string("http:h"),
                                  std::string("http://"),
                                  std::string("http:///x"),
                                  std::string("http:////x"),
                                  std::string("http://?q"),
                                  std::string("http://u@/x"),
                                  std::string("http://h:/x"),
                                  std::string("http://h:0/x"),
                                  std::string("http://h:00/"),
                                  std::string("http://h:65536/"),
                                  std::string("http://h:8x/"),
                                  std::string("http://h:-1/"),
                                  std::string("http://u:p/w@h/"),
                                  std::string("http://h h/"),
                                  std::string("http://h\n/"),
                                  std::string("http://[::1/"),
                                  std::string("http://[g]/"),
                                  std::string("http://[]/"),
                                  std::string("http://[::1]x/"),
                                  std::string("http://[1:2]/"),
                                  std::string("://h/"),
                                  std::string("ht tp://h/"),
                                  std::string("file://elsewhere/x"),
                                  std::string("file:/x"),
                                  with_nul}) {
    EXPECT_FALSE(ParseUrl(text).has_value()) << text;
  }
}

TEST(ParseUrlTest, AnyLengthThatASourceMayHaveIsTaken) {
  const std::string path = "/" + std::string(16 << 10, 'p');
  const std::string query = "?" + std::string(16 << 10, 'q');
  const Url url = Parsed("https://[::1]:1" + path + query);
  EXPECT_EQ(url.path, path);
  EXPECT_EQ(url.query, query);
}

TEST(UrlTest, AServerIsHttpWithHostAndPortAlone) {
  EXPECT_TRUE(Parsed("http://h:1").IsHttpServer());
  EXPECT_TRUE(Parsed("https://[::1]").IsHttpServer());
  for (const char* text : {"ftp://h", "http://h/", "http://h?x", "http://h#x", "http://u@h"}) {
    EXPECT_FALSE(Parsed(text).IsHttpServer()) << text;
  }
}

TEST(UrlTextTest, ASchemeIsToldFromAPath) {
  EXPECT_EQ(UrlScheme("OCI+http://h"), "oci+http");
  EXPECT_EQ(AfterScheme("OCI+http://h/x"), "h/x");
  for (const char* text : {"", "h/x", "/a b://c", "oci-layout:x", "a:/b"}) {
    EXPECT_EQ(UrlScheme(text), "") << text;
  }
  EXPECT_EQ(AfterScheme("h/x"), "h/x");
}

TEST(UrlTextTest, UsersAndPasswordsAreLeftOut) {
  const std::pair<const char*, const char*> cases[] = {
      {"http://h/a@b?c@d", "http://h/a@b?c@d"},
      {"http://u:p@h:1/a", "http://h:1/a"},
      {"http://u:p@x@h/a@b", "http://h/a@b"},
      {"http://u:pa/ss@h/a", "http://h/a"},
      {"http://u:pa?ss@h/a", "http://h/a"},
      {"http://u:pa#s@s@h/a", "http://h/a"},
      {"http://u:p@h h/a b", "http://h h/a b"},
      {"file:///a@b", "file:///a@b"},
      {"oci://h/a@sha256:0", "oci://h/a@sha256:0"},
      {"u:p@h", "u:p@h"},
      {"", ""},
  };
  for (const auto& [text, shown] : cases) EXPECT_EQ(WithoutUser(text), shown) << text;
}

}  // namespace
}  // namespace cachecore
