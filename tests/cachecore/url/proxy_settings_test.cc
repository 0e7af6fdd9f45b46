#include "cachecore/url/proxy_settings.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace cachecore {
namespace {

TEST(ProxySettingsTest, EachSchemeHasItsOwnProxy) {
  const ProxySettings settings = {"http://a:1", "http://b:2", ""};
  EXPECT_EQ(settings.For("http://registry.example/x"), "http://a:1");
  EXPECT_EQ(settings.For("https://registry.example/x"), "http://b:2");
  EXPECT_EQ(ProxySettings().For("https://registry.example/x"), "");
}

TEST(ProxySettingsTest, ThisMachineIsReachedDirectly) {
  const ProxySettings settings = {"http://a:1", "http://a:1", ""};
  for (const char* url : {"http://localhost:5000/", "https://127.0.0.1/", "http://[::1]:80/x",
                          "https://user@127.9.9.9:1/"}) {
    EXPECT_EQ(settings.For(url), "") << url;
  }
}

TEST(ProxySettingsTest, NoProxyNamesHostsAddressesAndNetworks) {
  const ProxySettings settings = {
      "http://a:1", "http://a:1",
      "one.example, "
      ".two.example,*.three.example,10.0.0.0/8,192.168.1.2,fd00::/8,four.example:8443"};
  for (const char* url :
       {"https://one.example/", "https://x.ONE.example/", "https://x.two.example/",
        "https://x.three.example/", "http://10.200.3.4/", "http://192.168.1.2:99/",
        "http://[fd00::1]/", "https://four.example:8443/"}) {
    EXPECT_EQ(settings.For(url), "") << url;
  }
  for (const char* url : {"https://notone.example/", "https://two.example/", "http://11.0.0.1/",
                          "http://192.168.1.3/", "https://four.example/", "http://[fe00::1]/",
                          "http://10.example/"}) {
    EXPECT_EQ(settings.For(url), "http://a:1") << url;
  }
  EXPECT_EQ((ProxySettings{"http://a:1", "", "*"}.For("http://any.example/")), "");
}

TEST(ProxySettingsTest, EitherCaseOfTheVariablesCounts) {
  for (const char* name : {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy",
                           "https_proxy", "all_proxy", "no_proxy"}) {
    unsetenv(name);
  }
  setenv("https_proxy", "http://lower:1", 1);
  setenv("HTTP_PROXY", "http://upper:1", 1);
  const ProxySettings settings = ProxySettings::FromEnvironment();
  unsetenv("https_proxy");
  unsetenv("HTTP_PROXY");
  EXPECT_EQ(settings.https, "http://lower:1");
  EXPECT_EQ(settings.http, "http://upper:1");
  EXPECT_FALSE(settings.HasUser());
  EXPECT_TRUE((ProxySettings{"http://u:p@a:1", "", ""}.HasUser()));
  EXPECT_TRUE((ProxySettings{"", "token@a:1", ""}.HasUser()));
}

TEST(ProxySettingsTest, AProxyIsShownWithoutUserAndPassword) {
  EXPECT_EQ(ShownProxy("http://u:p@proxy.example:3128/"), "http://proxy.example:3128");
  EXPECT_EQ(ShownProxy("u:p@proxy.example:3128"), "http://proxy.example:3128");
  EXPECT_EQ(ShownProxy("socks5h://u:pa/s@s@[::1]:1080"), "socks5h://[::1]:1080");
  EXPECT_EQ(ShownProxy("proxy.example"), "http://proxy.example");
}

}  // namespace
}  // namespace cachecore
