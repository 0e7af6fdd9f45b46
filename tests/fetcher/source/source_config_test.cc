#include "fetcher/source/source_config.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>

#include "cachecore/values/limits.h"
#include "fetcher/origins/registry_site.h"

namespace fetcher {
namespace {

std::string Error(const std::string& json) { return ParseSourceConfig(json).status().message(); }

TEST(SourceConfigTest, AllFieldsAreRead) {
  const auto config = ParseSourceConfig(
      R"({"version":1,"origins":["http://h:1/a/","file:///d/"],"query":"?x=y","ca_file":"/c"})");
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->origins, (std::vector<std::string>{"http://h:1/a/", "file:///d/"}));
  EXPECT_EQ(config->query, "?x=y");
  EXPECT_EQ(config->ca_file, "/c");
}

TEST(SourceConfigTest, WhatIsWrongIsSaid) {
  const auto with = [](const std::string& origin) {
    return Error(R"({"version":1,"origins":[")" + origin + "\"]}");
  };
  EXPECT_EQ(Error("{"), "not a JSON object");
  EXPECT_EQ(Error("[]"), "not a JSON object");
  EXPECT_EQ(Error(R"({"origins":["http://h/"]})"), "\"version\" is not 1");
  EXPECT_EQ(Error(R"({"version":2,"origins":["http://h/"]})"), "\"version\" is not 1");
  EXPECT_EQ(Error(R"({"version":1,"origins":["http://h/"],"ca-file":""})"),
            "there is a field that version 1 does not have");
  EXPECT_EQ(Error(R"({"version":1,"origins":[]})"), "\"origins\" is not a list of 1 to 16 URLs");
  EXPECT_EQ(Error(R"({"version":1,"origins":[5]})"), "an origin is not a string");
  EXPECT_EQ(with("ftp://h/"), "an origin is not http://, https://, s3://, oci:// or file:///");
  EXPECT_EQ(with("file://h/"), "an origin is not http://, https://, s3://, oci:// or file:///");
  EXPECT_EQ(with("http:///x/"), "an origin has no valid host and port");
  EXPECT_EQ(with("http://h"), "an origin does not end in '/'");
  EXPECT_EQ(with("http://h/x"), "an origin does not end in '/'");
  EXPECT_EQ(with("http://h/?a/"),
            "an origin has a query or a fragment (a query goes into \"query\")");
  EXPECT_EQ(with("http://h/ /"), "an origin has a byte that no URL may have");
  EXPECT_EQ(Error(R"({"version":1,"origins":["http://h/"],"query":"x"})"),
            "\"query\" is not a '?' and URL text");
  EXPECT_EQ(Error(R"({"version":1,"origins":["http://h/"],"ca_file":7})"),
            "\"ca_file\" is not a string");
}

TEST(SourceConfigTest, LongUrlsAreTakenUpToTheCommonLimits) {
  const auto parse = [](size_t url_bytes, size_t query_bytes, size_t origins) {
    std::string list;
    for (size_t i = 0; i < origins; ++i) {
      std::string url = "http://[::1]:8080/" + std::to_string(i);
      url += std::string(url_bytes - url.size() - 1, 'u') + "/";
      list += (i > 0 ? ",\"" : "\"") + url + "\"";
    }
    return ParseSourceConfig(R"({"version":1,"origins":[)" + list + R"(],"query":"?)" +
                             std::string(query_bytes - 1, 'q') + "\"}");
  };
  const size_t most = cachecore::kUrlBytesMax;
  const auto all = parse(most, cachecore::kQueryBytesMax, cachecore::kOriginsMax);
  ASSERT_TRUE(all.ok()) << all.status().message();
  EXPECT_EQ(all->origins.back().size(), most);
  EXPECT_EQ(parse(most + 1, 2, 1).status().message(), "an origin is longer than 16384 bytes");
  EXPECT_EQ(parse(100, cachecore::kQueryBytesMax + 1, 1).status().message(),
            "\"query\" is longer than 16384 bytes");
}

TEST(ShortUrlTest, KeepsBeginningAndEnd) {
  EXPECT_EQ(ShortUrl("http://h/x"), "http://h/x");
  const std::string shown = ShortUrl("http://h/" + std::string(16'000, 'x') + "/the-end");
  EXPECT_EQ(shown.size(), cachecore::kShownUrlBytesMax);
  EXPECT_TRUE(shown.starts_with("http://h/xxx") && shown.ends_with("/the-end")) << shown;
}

TEST(SourceConfigTest, CertificatesHeadersAndS3AreRead) {
  const auto config = ParseSourceConfig(
      R"({"version":1,"origins":["s3://bucket/","s3://b/p/"],"client_cert":"/c","client_key":"/k",)"
      R"("headers_file":"/h","s3":{"endpoint":"http://h:9","region":"r-1","path_style":true,)"
      R"("profile":"p","credentials_file":"/f","config_file":"/g"}})");
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->files.client_cert + config->files.client_key + config->files.headers, "/c/k/h");
  const S3Options s3{"http://h:9", "r-1", "p", "/f", "/g", true};
  EXPECT_TRUE(config->s3 == s3);
  const auto with_s3 = [](const std::string& s3_text) {
    return Error(R"({"version":1,"origins":["s3://b/"],"s3":)" + s3_text + "}");
  };
  EXPECT_EQ(with_s3("7"), "\"s3\" is not an object");
  EXPECT_EQ(with_s3(R"({"secret":"x"})"), "there is a field that version 1 does not have");
  EXPECT_EQ(with_s3(R"({"path_style":"yes"})"), "\"path_style\" is not true or false");
  EXPECT_EQ(with_s3(R"({"region":"a/b"})"), "the region of \"s3\" is no word");
  for (const char* endpoint : {"h:9", "http://u:p@h", "http://h/x", "http://", "ftp://h"}) {
    EXPECT_EQ(with_s3(R"({"endpoint":")" + std::string(endpoint) + "\"}"),
              "the endpoint of \"s3\" is not http:// or https:// with a host and perhaps a port");
  }
  EXPECT_EQ(Error(R"({"version":1,"origins":["s3:///x/"]})"), "an origin has no bucket");
}

TEST(SourceConfigTest, ErrorsShowNoSecret) {
  EXPECT_EQ(Error(R"({"version":1,"origins":["http://u:secret@h/x"]})").find("secret"),
            std::string::npos);
  EXPECT_EQ(Error(R"({"version":1,"origins":["http://h/"],"secret":1})").find("secret"),
            std::string::npos);
}

TEST(SourceConfigTest, VolumesThatCouldLeaveTheDirectoryAreRefused) {
  for (const char* volume : {"", "..", ".x", "a/b", "../etc"}) {
    EXPECT_EQ(LoadSourceConfig("/nonexistent", volume).status().error(), EINVAL) << volume;
  }
  EXPECT_EQ(LoadSourceConfig("/nonexistent", "v").status().error(), ENOENT);
}

TEST(SourceConfigTest, ARegistryIsAHostAndARepository) {
  const auto with = [](const std::string& origin, const std::string& oci) {
    return Error(R"({"version":1,"origins":[")" + origin + "\"],\"oci\":" + oci + "}");
  };
  EXPECT_EQ(with("oci:///x/", "{}"), "an origin has no valid host and port");
  EXPECT_EQ(with("oci://h/", "{}"), "an oci:// origin is not REGISTRY/REPO/");
  EXPECT_EQ(with("oci://u:secret@h/x/", "{}"), "an oci:// origin is not REGISTRY/REPO/");
  EXPECT_EQ(with("oci://h/x/", "7"), "\"oci\" is not an object");
  EXPECT_EQ(with("oci://h/x/", R"({"password":"x"})"),
            "there is a field that version 1 does not have");
  EXPECT_EQ(with("oci://h/x/", R"({"plain_http":1})"), "\"plain_http\" is not true or false");
  const RegistryConfig config{"oci://h:5000/a/b/", {"/auth.json", {}, false}, {}, {}};
  EXPECT_EQ(config.Registry(), "h:5000");
  EXPECT_EQ(config.Repository(), "a/b");
  EXPECT_EQ(config.ApiUrl(), "https://h:5000/v2/");
}

TEST(SourceConfigTest, ARegistryCanHaveItsOwnCertificatesAndTheSourceItsProxies) {
  const auto config = ParseSourceConfig(
      R"({"version":1,"origins":["oci://h:1/a/","oci+http://h:1/a/"],
          "registries":{"h:1":{"ca_file":"/c","client_cert":"/d","client_key":"/e","insecure":true}},
          "proxy":{"http":"http://p:1","https":"","no":"x"}})");
  ASSERT_TRUE(config.ok()) << config.status().message();
  const RegistryAccess& own = config->registries.at("h:1");
  EXPECT_EQ(own.ca_file + own.client_cert + own.client_key, "/c/d/e");
  EXPECT_TRUE(own.insecure);
  EXPECT_EQ(config->proxy.http, "http://p:1");
  EXPECT_EQ(config->proxy.no, "x");
  EXPECT_FALSE(ParseSourceConfig(R"({"version":1,"origins":["oci://h/a/"],"registries":[]})").ok());
  EXPECT_FALSE(ParseSourceConfig(R"({"version":1,"origins":["oci://h/a/"],"proxy":{"x":1}})").ok());
}

TEST(ObjectKeyTest, OneSegmentOfAUrlAndNothingElse) {
  for (const char* good : {"x", "a.erofs", "...", "%41", "a%20b", "sha256:ab", "a+b"}) {
    EXPECT_TRUE(CheckObjectKey(good).ok()) << good;
  }
  for (const char* bad : {"", ".", "..", "%2e", "%2E%2e", ".%2e", "a/b", "a%2fb", "a\\b", "a?b",
                          "a#b", "a b", "a%", "a%4", "a%zz", "a%00", "\xc3\xa4"}) {
    EXPECT_EQ(CheckObjectKey(bad).error(), EINVAL) << bad;
  }
}

TEST(OriginSchemeTest, OnlyAKnownSchemeHasABackend) {
  EXPECT_EQ(*OriginSchemeOf("http://h/"), OriginScheme::kHttp);
  EXPECT_EQ(*OriginSchemeOf("https://h/"), OriginScheme::kHttp);
  EXPECT_EQ(*OriginSchemeOf("s3://b/"), OriginScheme::kS3);
  EXPECT_EQ(*OriginSchemeOf("oci://h/r/"), OriginScheme::kRegistry);
  EXPECT_EQ(*OriginSchemeOf("oci+http://h/r/"), OriginScheme::kRegistry);
  EXPECT_EQ(*OriginSchemeOf("file:///d/"), OriginScheme::kFile);
  // None of these may become plain HTTP.
  for (const char* url : {"", "ftp://h/", "httpx://h/", "http:/h/", "HTTP://h/", "file://h/d/",
                          "oci-blob://h/r/", "//h/", "h/"}) {
    EXPECT_EQ(OriginSchemeOf(url).status().error(), EINVAL) << url;
  }
}

TEST(RedactUrlTest, OnlySchemeHostAndPathAreLeft) {
  EXPECT_EQ(RedactUrl("http://h:1/a/b"), "http://h:1/a/b");
  EXPECT_EQ(RedactUrl("http://u:p@h:1/a"), "http://h:1/a");
  EXPECT_EQ(RedactUrl("http://u:p@x@h/a@b"), "http://h/a@b");
  EXPECT_EQ(RedactUrl("http://h/a?token=t#f"), "http://h/a");
  EXPECT_EQ(RedactUrl("http://u:p@h"), "http://h");
  EXPECT_EQ(RedactUrl("file:///d/x"), "file:///d/x");
}

}  // namespace
}  // namespace fetcher
