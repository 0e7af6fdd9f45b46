#include "cli/image_source.h"

#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "cachecore/limits.h"
#include "cachecore/secret_file.h"
#include "cli/image_identity.h"
#include "cli/source_files.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;
using nlohmann::json;

constexpr size_t kReadablePartBytesMax = 80;

constexpr char kLower[] = "abcdefghijklmnopqrstuvwxyz";
constexpr char kAlphanumeric[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

std::string ToLower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) {
    return static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  });
  return text;
}

bool ConsistsOf(const std::string& text, const std::string& allowed) {
  return text.find_first_not_of(allowed) == std::string::npos;
}

// `text` up to anything that may be secret, for messages.
std::string Quoted(const std::string& text) {
  std::string shown = text.substr(0, text.find('?'));
  if (shown.size() > cachecore::kShownUrlBytesMax) {
    shown.replace(cachecore::kShownUrlBytesMax, std::string::npos, "...");
  }
  const size_t authority = shown.find("://");
  const size_t at = shown.find('@');
  if (authority != std::string::npos && at != std::string::npos) {
    shown.erase(authority + 3, at + 1 - (authority + 3));
  }
  return "'" + shown + "'";
}

// "Host:443" -> "host" for https; empty when it can't be a host and port.
std::string CanonicalAuthority(const std::string& scheme, const std::string& authority) {
  std::string host = authority;
  std::string port;
  const size_t bracket = host.rfind(']');
  const size_t colon = host.rfind(':');
  if (colon != std::string::npos && (bracket == std::string::npos || colon > bracket)) {
    port = host.substr(colon + 1);
    host.resize(colon);
    const int number =
        ConsistsOf(port, "0123456789") && port.size() <= 5 ? std::atoi(port.c_str()) : 0;
    if (number < 1 || number > 65535) return "";
    port = std::to_string(number);
  }
  host = ToLower(host);
  const bool is_ipv6 = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (is_ipv6 ? !ConsistsOf(host.substr(1, host.size() - 2), "0123456789abcdef:.")
              : !ConsistsOf(host, std::string(kLower) + "0123456789.-_")) {
    return "";
  }
  if (host.empty()) return "";
  const bool is_default =
      (scheme == "http" && port == "80") || (scheme == "https" && port == "443") || port.empty();
  return is_default ? host : host + ":" + port;
}

// Splits what follows the authority into `url`'s last part of the base, object and query.
Status SplitPath(const std::string& rest, const std::string& shown, ImageUrl* url) {
  const size_t question = rest.find('?');
  const std::string path = rest.substr(0, question);
  if (question != std::string::npos) url->query = rest.substr(question);
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos || slash + 1 == path.size()) {
    return Status(EINVAL, shown + " names no file: its path must end in the image's name");
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

Status CheckBucket(const std::string& bucket, const std::string& rest, const std::string& shown) {
  if (bucket.size() < 3 || bucket.size() > 63 ||
      !ConsistsOf(bucket, std::string(kAlphanumeric) + ".-_")) {
    return Status(EINVAL, shown + " has no valid bucket; it is s3://BUCKET/KEY");
  }
  if (rest.empty() || rest == "/") {
    return Status(EINVAL, shown + " has no key; it is s3://BUCKET/KEY");
  }
  if (rest.find('?') == std::string::npos) return {};
  return Status(EINVAL, shown + " was given with a query, which s3:// URLs don't have");
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
  const size_t colon = text.find("://");
  const std::string scheme = colon == std::string::npos ? "" : ToLower(text.substr(0, colon));
  if (scheme != "http" && scheme != "https" && scheme != "s3" && scheme != "file") {
    return Status(EINVAL, shown +
                              " is not an image URL; use http://, https://, s3://BUCKET/KEY, "
                              "file:///path, oci:// or oci-layout:");
  }
  if (text.find('#') != std::string::npos) {
    return Status(EINVAL, shown + " has a fragment ('#'), which names nothing on an origin");
  }
  const size_t path = text.find_first_of("/?", colon + 3);
  const std::string authority =
      text.substr(colon + 3, path == std::string::npos ? std::string::npos : path - (colon + 3));
  const std::string rest = path == std::string::npos ? "" : text.substr(path);
  ImageUrl url;
  if (scheme == "file") {
    if (!authority.empty() && ToLower(authority) != "localhost") {
      return Status(EINVAL, shown + " names a host; a file URL is file:///path");
    }
    if (rest.find('?') != std::string::npos) {
      return Status(EINVAL, shown + " was given with a query, which files don't have; a '?' in a "
                                    "file's name is written %3F");
    }
    url.base = "file://";
  } else if (scheme == "s3") {
    RETURN_IF_ERROR(CheckBucket(authority, rest, shown));
    url.base = "s3://" + authority;
  } else {
    if (authority.find('@') != std::string::npos) {
      return Status(EINVAL,
                    shown +
                        " was given with a user name or password; everybody could read it in "
                        "the process list, so it is not accepted there");
    }
    const std::string canonical = CanonicalAuthority(scheme, authority);
    if (canonical.empty()) {
      return Status(EINVAL, shown + " has no valid host and port");
    }
    url.base = scheme + "://" + canonical;
  }
  RETURN_IF_ERROR(SplitPath(rest, shown, &url));
  return url;
}

std::string ImageSource::Volume() const {
  std::string readable = origins.front().base;
  readable = readable.substr(readable.find("://") + 3);
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
  if (IsOfRegistry()) urls.resize(1);
  std::sort(urls.begin(), urls.end());
  std::string canonical;
  for (const std::string& url : urls) canonical += url + "\n";
  // Another server's bucket of the same name is another bucket.
  if (!access.s3_endpoint.empty()) canonical += "s3 " + access.s3_endpoint + "\n";
  if (!headers.empty()) canonical += "headers\n" + headers;
  // What is checked shares nothing with what is not.
  if (!verity.empty()) canonical += verity + "\n";
  char hash[9];
  std::snprintf(hash, sizeof hash, "%08x",
                static_cast<unsigned>(XXH64(canonical.data(), canonical.size(), 0) >> 32));
  return readable + "-" + hash;
}

json ImageSource::ToJson() const {
  json value = {{"version", 1}, {"origins", json::array()}};
  for (const ImageUrl& origin : origins) value["origins"].push_back(origin.base);
  if (!origins.front().query.empty()) value["query"] = origins.front().query;
  access.AddTo(&value);
  if (!verity.empty()) value["verity"] = verity;
  if (!merkle.empty()) value["merkle"] = merkle;
  json files = FilesOfSource(*this);
  if (!files.empty()) value["files"] = std::move(files);
  if (IsOfRegistry()) {
    json oci = json::object();
    if (!auth_file.empty()) oci["auth_file"] = auth_file;
    if (plain_http) oci["plain_http"] = true;
    value["oci"] = std::move(oci);
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
  if (!source.access.headers_file.empty()) {
    ASSIGN_OR_RETURN(const std::string text,
                     cachecore::ReadSecretFile(source.access.headers_file, "headers file"));
    source.headers = IdentityOfHeaders(text);
  }
  return source;
}

SourceChange CompareSources(const json& in_use, const json& wanted) {
  const auto without_order = [](json source) {
    json& origins = source["origins"];
    if (origins.is_array()) std::sort(origins.begin(), origins.end());
    source.erase("files");  // Whether the object is another now, is the fetcher's to say.
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
    char escaped[4];
    std::snprintf(escaped, sizeof escaped, "%%%02X", static_cast<unsigned>(c & 0xff));
    encoded += escaped;
  }
  return encoded;
}

}  // namespace cli
