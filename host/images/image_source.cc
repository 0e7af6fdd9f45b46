#include "host/images/image_source.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <iostream>
#include <optional>

#include "cachecore/base/digest.h"
#include "cachecore/base/hex.h"
#include "cachecore/base/parse_text.h"
#include "cachecore/environment/secret_file.h"
#include "cachecore/url/url.h"
#include "cachecore/values/limits.h"
#include "host/images/image_identity.h"
#include "host/registries/image_reference.h"

namespace host {
namespace {

using cachecore::DigestHex;
using cachecore::DigestOf;
using cachecore::Result;
using cachecore::Status;
using cachecore::Url;
using nlohmann::json;

constexpr size_t kReadablePartBytesMax = 80;
// 128 bits: neither chance nor the author of an image's URL makes two sources share a volume.
constexpr size_t kIdentityDigits = 32;

constexpr char kAlphanumeric[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

bool ConsistsOf(const std::string& text, const std::string& allowed) {
  return text.find_first_not_of(allowed) == std::string::npos;
}

// `text` up to anything that may be secret, for messages.
std::string Quoted(const std::string& text) {
  std::string shown = cachecore::WithoutUser(text);
  shown.resize(std::min(shown.size(), shown.find('?')));
  if (shown.size() > cachecore::kShownUrlBytesMax) {
    shown.replace(cachecore::kShownUrlBytesMax, std::string::npos, "...");
  }
  return "'" + shown + "'";
}

// In one spelling; empty when the host or the zone has a byte that no name has.
std::string CanonicalAuthority(const Url& url) {
  std::string host = url.host;
  if (host.starts_with('[')) {
    const size_t zone = host.find("%25");  // "[fe80::1%25eth0]": a name of this machine.
    if (zone == std::string::npos) return url.CanonicalAuthority();
    host = host.substr(zone + 3, host.size() - 1 - (zone + 3));
  }
  const bool fits = ConsistsOf(host, std::string(kAlphanumeric) + "._-");
  return fits ? url.CanonicalAuthority() : "";
}

// Splits the path into `url`'s last part of the base and the object.
Status SplitPath(const std::string& path, const std::string& shown, ImageUrl* url) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos || slash + 1 == path.size()) {
    const auto local = cachecore::PercentDecode(url->base == "file://" ? path : "");
    return Status(EINVAL, shown + " names no file: its path must end in the image's name" +
                              (local.ok() ? HintForPath(*local) : ""));
  }
  url->base += path.substr(0, slash + 1);
  url->object = path.substr(slash + 1);
  if (url->object == "." || url->object == "..") {
    return Status(EINVAL, shown + " names no file: it ends in '" + url->object + "'");
  }
  if (url->object.size() > kObjectNameBytesMax) {
    return Status(EINVAL, shown + " ends in a name of " + std::to_string(url->object.size()) +
                              " bytes; at most " + std::to_string(kObjectNameBytesMax) + " fit");
  }
  return {};
}

Status CheckBucket(const Url& url, const std::string& shown) {
  const std::string& bucket = url.authority;
  if (bucket.size() < 3 || bucket.size() > 63 || url.has_user ||
      !ConsistsOf(bucket, std::string(kAlphanumeric) + ".-_")) {
    return Status(EINVAL, shown + " has no valid bucket; it is s3://BUCKET/KEY");
  }
  if (url.path.size() < 2) return Status(EINVAL, shown + " has no key; it is s3://BUCKET/KEY");
  if (url.query.empty()) return {};
  return Status(EINVAL, shown + " was given with a query, which s3:// URLs don't have");
}

// Sets the base of `image` up to its path.
Status TakePlace(const std::string& scheme, const std::optional<Url>& url, const std::string& shown,
                 ImageUrl* image) {
  if (scheme == "file") {
    if (!url) return Status(EINVAL, shown + " names a host; a file URL is file:///path");
    if (!url->query.empty()) {
      return Status(EINVAL, shown +
                                " was given with a query, which files don't have; a '?' in a "
                                "file's name is written %3F");
    }
    image->base = "file://";
    return {};
  }
  if (scheme == "s3") {
    RETURN_IF_ERROR(CheckBucket(url.value_or(Url()), shown));
    image->base = url->Place();
    return {};
  }
  if (url && url->has_user) {
    return Status(EINVAL, shown +
                              " was given with a user name or password; all users could read it in "
                              "the process list, so it is not accepted there");
  }
  const std::string canonical = url ? CanonicalAuthority(*url) : "";
  if (canonical.empty()) return Status(EINVAL, shown + " has no valid host and port");
  image->base = scheme + "://" + canonical;
  return {};
}

}  // namespace

Result<ImageUrl> ParseImageUrl(const std::string& text) {
  const std::string shown = Quoted(text);
  const auto is_bad = [](unsigned char c) { return c <= ' ' || c >= 0x7f; };
  if (std::any_of(text.begin(), text.end(), is_bad)) {
    return Status(EINVAL, shown + " has a space or another character that must be percent-encoded");
  }
  const size_t url_bytes = std::min(text.find('?'), text.size());
  const auto too_long = [&shown](const std::string& what, size_t bytes, size_t most) {
    return Status(EINVAL, shown + " " + what + " of " + std::to_string(bytes) + " bytes; at most " +
                              std::to_string(most) + " fit");
  };
  if (url_bytes > cachecore::kUrlBytesMax) {
    return too_long("is a URL", url_bytes, cachecore::kUrlBytesMax);
  }
  if (text.size() - url_bytes > cachecore::kQueryBytesMax) {
    return too_long("has a query", text.size() - url_bytes, cachecore::kQueryBytesMax);
  }
  const std::string scheme = cachecore::UrlScheme(text);
  if (scheme != "http" && scheme != "https" && scheme != "s3" && scheme != "file") {
    return Status(EINVAL, shown +
                              " is not an image URL; use http://, https://, s3://BUCKET/KEY, "
                              "file:///path, oci:// or oci-layout:" +
                              HintForPath(text));
  }
  if (text.find('#') != std::string::npos) {
    return Status(EINVAL, shown + " has a fragment ('#'), which names nothing on an origin");
  }
  const std::optional<Url> url = cachecore::ParseUrl(text);
  ImageUrl image;
  RETURN_IF_ERROR(TakePlace(scheme, url, shown, &image));
  image.query = url->query;
  RETURN_IF_ERROR(SplitPath(url->path, shown, &image));
  return image;
}

std::string ImageSource::Volume() const {
  std::string readable = named.empty() ? origins.front().base : named;
  readable = std::string(cachecore::AfterScheme(readable));
  while (!readable.empty() && readable.back() == '/') readable.pop_back();
  std::replace_if(
      readable.begin(), readable.end(),
      [](char c) { return !ConsistsOf(std::string(1, c), std::string(kAlphanumeric) + "._-"); },
      '_');
  readable = readable.substr(0, kReadablePartBytesMax);
  if (!readable.empty() && readable.front() == '.') readable.front() = '_';  // Never hidden.

  std::vector<std::string> urls;
  for (const ImageUrl& origin : origins) {
    urls.push_back(origin.Public() + (path_is_identity ? "" : IdentityOfQuery(origin.query)));
  }
  if (IsOfRegistry()) urls = {PublicUrl()};
  std::sort(urls.begin(), urls.end());
  std::string canonical;
  for (const std::string& url : urls) canonical += url + "\n";
  // Another server's bucket of the same name is another bucket.
  if (!access.s3_endpoint.empty()) canonical += "s3 " + access.s3_endpoint + "\n";
  if (!headers.empty()) canonical += "headers\n" + headers;
  // What is checked shares nothing with what is not.
  if (!verity.empty()) canonical += verity + "\n";
  return readable + "-" + DigestHex(DigestOf(canonical)).substr(0, kIdentityDigits);
}

json ImageSource::ToJson() const {
  json value = {{"version", 1}, {"origins", json::array()}};
  for (const ImageUrl& origin : origins) value["origins"].push_back(origin.base);
  if (!origins.front().query.empty()) value["query"] = origins.front().query;
  access.AddTo(&value);
  if (!verity.empty()) value["verity"] = verity;
  if (!merkle.empty()) value["merkle"] = merkle;
  if (!files.empty()) value["files"] = files;
  if (IsOfRegistry()) {
    json oci = json::object();
    if (!auth_file.empty()) oci["auth_file"] = auth_file;
    if (!more_auth_files.empty()) oci["more_auth_files"] = more_auth_files;
    if (plain_http) oci["plain_http"] = true;
    value["oci"] = std::move(oci);
  }
  if (!registries.empty()) value["registries"] = registries;
  const bool is_remote = std::any_of(origins.begin(), origins.end(), [](const ImageUrl& origin) {
    return !origin.base.starts_with("file:");
  });
  if (is_remote && !proxy.empty()) {
    value["proxy"] = {{"http", proxy.http}, {"https", proxy.https}, {"no", proxy.no}};
  }
  return value;
}

Result<ImageSource> MakeImageSource(const std::vector<std::string>& urls,
                                    const OriginAccess& access) {
  ImageSource source;
  for (const std::string& text : urls) {
    ASSIGN_OR_RETURN(ImageUrl url, ParseImageUrl(text));
    if (!source.origins.empty()) {
      const ImageUrl& first = source.origins.front();
      if (url.object != first.object || url.query != first.query) {
        return Status(EINVAL, "the origins " + first.Public() + " and " + url.Public() +
                                  " must end in the same file name and query");
      }
      const auto is_same = [&url](const ImageUrl& known) { return known.base == url.base; };
      if (std::any_of(source.origins.begin(), source.origins.end(), is_same)) continue;
    }
    source.origins.push_back(std::move(url));
  }
  std::vector<std::string> origins;
  for (const ImageUrl& origin : source.origins) origins.push_back(origin.base);
  ASSIGN_OR_RETURN(source.access, access.Resolve(origins));
  source.proxy = ProxyForSources();
  if (!source.access.headers_file.empty()) {
    ASSIGN_OR_RETURN(const std::string text,
                     cachecore::ReadSecretFile(source.access.headers_file, "headers file"));
    source.headers = IdentityOfHeaders(text);
  }
  return source;
}

cachecore::ProxySettings ProxyForSources() {
  cachecore::ProxySettings proxy = cachecore::ProxySettings::FromEnvironment();
  if (!proxy.HasUser()) return proxy;
  std::cerr << "holdfast: a proxy of the environment has a user or password, which is written to "
               "no file; "
               "the fetcher takes the proxies of its own environment\n";
  return {};
}

SourceChange CompareSources(const json& in_use, const json& wanted, bool ignores_auth_files) {
  const auto without_order = [ignores_auth_files](json source) {
    json& origins = source["origins"];
    if (origins.is_array()) std::sort(origins.begin(), origins.end());
    source.erase("files");  // Whether the object is another now, is the fetcher's to say.
    source.erase("proxy");  // A way, which the mount that is there has already.
    if (ignores_auth_files && source["oci"].is_object()) {
      source["oci"].erase("auth_file");
      source["oci"].erase("more_auth_files");
    }
    return source;
  };
  json before = without_order(in_use);
  json after = without_order(wanted);
  if (before == after) return SourceChange::kNone;
  before.erase("query");
  after.erase("query");
  return before == after ? SourceChange::kSignature : SourceChange::kAccess;
}

std::string PercentEncodePath(const std::string& path) {
  std::string encoded;
  for (const char c : path) {
    if (ConsistsOf(std::string(1, c), std::string(kAlphanumeric) + "/._-~")) {
      encoded += c;
      continue;
    }
    encoded += '%' + cachecore::UpperHexText({&c, 1});
  }
  return encoded;
}

}  // namespace host
