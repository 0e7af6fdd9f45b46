#include "cachecore/url/proxy_settings.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <optional>
#include <sstream>

#include "cachecore/base/parse_text.h"
#include "cachecore/url/url.h"

namespace cachecore {
namespace {

std::string Variable(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const char* const value = std::getenv(name);
    if (value != nullptr && value[0] != '\0') return value;
  }
  return "";
}

std::string Trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

struct HostPort {
  std::string host;  // Without brackets.
  std::string port;  // "" when there is none.
};

HostPort SplitHostPort(const std::string& text) {
  if (text.starts_with('[')) {
    const size_t end = text.find(']');
    if (end == std::string::npos) return {text, ""};
    return {text.substr(1, end - 1),
            text.substr(std::min(text.size(), end + 2))};  // "]:" or the end.
  }
  const size_t colon = text.find(':');
  // Several: an IPv6 address.
  if (colon == std::string::npos || text.find(':', colon + 1) != std::string::npos) {
    return {text, ""};
  }
  return {text.substr(0, colon), text.substr(colon + 1)};
}

// An address as 16 bytes; IPv4 as IPv6 has it.
struct Address {
  unsigned char bytes[16] = {};
  bool is_v4 = false;
};

std::optional<Address> ParseAddress(const std::string& text) {
  Address address;
  if (inet_pton(AF_INET6, text.c_str(), address.bytes) == 1) return address;
  address.is_v4 = true;
  address.bytes[10] = address.bytes[11] = 0xff;
  if (inet_pton(AF_INET, text.c_str(), address.bytes + 12) == 1) return address;
  return std::nullopt;
}

bool IsLoopback(const Address& address) {
  static constexpr unsigned char kV6[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  return address.is_v4 ? address.bytes[12] == 127 : std::memcmp(address.bytes, kV6, 16) == 0;
}

bool IsInNetwork(const Address& address, const std::string& network) {
  const size_t slash = network.find('/');
  const std::optional<Address> base = ParseAddress(network.substr(0, slash));
  if (!base || base->is_v4 != address.is_v4) return false;
  const int given = std::atoi(network.c_str() + slash + 1);
  const int bits = given + (base->is_v4 ? 96 : 0);
  if (given < 0 || bits > 128) return false;
  for (int i = 0; i < bits; ++i) {
    const int mask = 0x80 >> (i % 8);
    if ((address.bytes[i / 8] & mask) != (base->bytes[i / 8] & mask)) return false;
  }
  return true;
}

bool Matches(const std::string& entry, const HostPort& target,
             const std::optional<Address>& address) {
  if (entry == "*") return true;
  if (entry.find('/') != std::string::npos) return address && IsInNetwork(*address, entry);
  HostPort named = SplitHostPort(entry);
  if (!named.port.empty() && named.port != target.port) return false;
  if (const std::optional<Address> same = ParseAddress(named.host); same) {
    return address && std::memcmp(same->bytes, address->bytes, sizeof same->bytes) == 0;
  }
  if (named.host.starts_with("*.")) named.host.erase(0, 1);
  if (named.host.empty()) return false;
  if (named.host.starts_with('.')) return target.host.ends_with(named.host);
  return target.host == named.host || target.host.ends_with("." + named.host);
}

}  // namespace

// A password may have a '/' or a '@' that should have been percent-encoded.
std::string ProxyUser(std::string_view url) {
  const std::string_view rest = AfterScheme(url);
  return std::string(rest.substr(0, rest.rfind('@') + 1));
}

std::string ShownProxy(std::string_view url) {
  std::string_view rest = AfterScheme(url);
  // Without a scheme it is of http, as libcurl takes it.
  const std::string_view scheme =
      rest.size() == url.size() ? "http://" : url.substr(0, url.size() - rest.size());
  rest.remove_prefix(ProxyUser(url).size());
  return std::string(scheme) + std::string(rest.substr(0, rest.find_first_of("/?#")));
}

ProxySettings ProxySettings::FromEnvironment() {
  return {Variable({"HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"}),
          Variable({"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"}),
          Variable({"NO_PROXY", "no_proxy"})};
}

bool ProxySettings::HasUser() const {
  return !ProxyUser(http).empty() || !ProxyUser(https).empty();
}

std::string ProxySettings::For(const std::string& text) const {
  const std::optional<Url> url = ParseUrl(text);
  if (!url) return "";
  const std::string& proxy = url->scheme == "https" ? https : http;
  if (proxy.empty()) return "";
  HostPort target = SplitHostPort(url->host);
  target.port = url->port;
  const std::optional<Address> address = ParseAddress(target.host);
  if (target.host == "localhost" || (address && IsLoopback(*address))) return "";
  std::istringstream entries(no);
  for (std::string entry; std::getline(entries, entry, ',');) {
    entry = LowerCase(Trimmed(entry));
    if (!entry.empty() && Matches(entry, target, address)) return "";
  }
  return proxy;
}

}  // namespace cachecore
