#include "fetcher/source/source_config.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <functional>
#include <initializer_list>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "cachecore/base/hex.h"
#include "cachecore/base/parse_text.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/url/url.h"
#include "cachecore/values/limits.h"

namespace fetcher {
namespace {

using cachecore::Result;
using cachecore::Status;
using nlohmann::json;

Status Bad(const std::string& what) { return Status(EINVAL, what); }

// Space, control and non-ASCII bytes never stand in a URL.
bool IsUrlText(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7f; });
}

Status CheckOrigin(const std::string& url) {
  ASSIGN_OR_RETURN(const OriginScheme scheme, OriginSchemeOf(url));
  if (url.size() > cachecore::kUrlBytesMax) return Bad("an origin is longer than 16384 bytes");
  if (!IsUrlText(url)) return Bad("an origin has a byte that no URL may have");
  if (url.find_first_of("?#") != std::string::npos) {
    return Bad("an origin has a query or a fragment (a query goes into \"query\")");
  }
  const bool is_registry = scheme == OriginScheme::kRegistry;
  if (scheme != OriginScheme::kFile) {
    const std::optional<cachecore::Url> parsed = cachecore::ParseUrl(url);
    if (!parsed) {
      return Bad(scheme == OriginScheme::kS3 ? "an origin has no bucket"
                                             : "an origin has no valid host and port");
    }
    if (is_registry && (parsed->path.size() < 2 || parsed->has_user)) {
      return Bad("an oci:// origin is not REGISTRY/REPO/");
    }
  }
  if (url.back() != '/') return Bad("an origin does not end in '/'");
  return Status();
}

// Sets *text from an optional string field.
Status TakeString(const json& object, const char* name, std::string* text) {
  const auto it = object.find(name);
  if (it == object.end()) return Status();
  if (!it->is_string()) return Bad(std::string("\"") + name + "\" is not a string");
  *text = it->get<std::string>();
  if (text->find('\0') != std::string::npos) {
    return Bad(std::string("\"") + name + "\" has a NUL byte");
  }
  return Status();
}

// Sets *path from an optional string field, in which U+0000 and two hexadecimal digits stand for a
// byte that is not UTF-8.
Status TakePath(const json& object, const char* name, std::string* path) {
  const auto it = object.find(name);
  if (it == object.end()) return Status();
  if (!it->is_string()) return Bad(std::string("\"") + name + "\" is not a string");
  const std::string text = it->get<std::string>();
  path->clear();
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\0') {
      *path += text[i];
      continue;
    }
    const std::optional<std::string> byte =
        cachecore::BytesOfHex(std::string_view(text).substr(i + 1, 2));
    const bool is_byte = byte && byte->size() == 1 && (*byte)[0] != '\0';
    if (!is_byte) return Bad(std::string("\"") + name + "\" has a NUL byte");
    *path += *byte;
    i += 2;
  }
  return Status();
}

Status TakeBool(const json& object, const char* name, bool* value) {
  const auto it = object.find(name);
  if (it == object.end()) return Status();
  if (!it->is_boolean()) return Bad(std::string("\"") + name + "\" is not true or false");
  *value = it->get<bool>();
  return Status();
}

Status CheckFields(const json& object, std::initializer_list<const char*> known) {
  for (const auto& [name, value] : object.items()) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      return Bad("there is a field that version 1 does not have");
    }
  }
  return Status();
}

Status TakeCredentialFiles(const json& root, CredentialFiles* files) {
  RETURN_IF_ERROR(TakePath(root, "client_cert", &files->client_cert));
  RETURN_IF_ERROR(TakePath(root, "client_key", &files->client_key));
  return TakePath(root, "headers_file", &files->headers);
}

Status TakeS3(const json& root, S3Options* s3) {
  const auto it = root.find("s3");
  if (it == root.end()) return Status();
  if (!it->is_object()) return Bad("\"s3\" is not an object");
  RETURN_IF_ERROR(CheckFields(
      *it, {"endpoint", "region", "path_style", "profile", "credentials_file", "config_file"}));
  RETURN_IF_ERROR(TakeString(*it, "endpoint", &s3->endpoint));
  RETURN_IF_ERROR(TakeString(*it, "region", &s3->region));
  RETURN_IF_ERROR(TakeString(*it, "profile", &s3->profile));
  RETURN_IF_ERROR(TakePath(*it, "credentials_file", &s3->credentials_file));
  RETURN_IF_ERROR(TakePath(*it, "config_file", &s3->config_file));
  RETURN_IF_ERROR(TakeBool(*it, "path_style", &s3->path_style));
  const auto fits = [](unsigned char c) { return std::isalnum(c) || c == '-'; };
  if (!std::all_of(s3->region.begin(), s3->region.end(), fits)) {
    return Bad("the region of \"s3\" is no word");
  }
  if (s3->endpoint.empty()) return Status();
  const std::optional<cachecore::Url> endpoint = cachecore::ParseUrl(s3->endpoint);
  if (!endpoint || !IsUrlText(s3->endpoint) || !endpoint->IsHttpServer()) {
    return Bad("the endpoint of \"s3\" is not http:// or https:// with a host and perhaps a port");
  }
  return Status();
}

Status TakeRegistry(const json& root, RegistryOptions* registry) {
  const auto it = root.find("oci");
  if (it == root.end()) return Status();
  if (!it->is_object()) return Bad("\"oci\" is not an object");
  RETURN_IF_ERROR(CheckFields(*it, {"auth_file", "more_auth_files", "plain_http"}));
  RETURN_IF_ERROR(TakePath(*it, "auth_file", &registry->auth_file));
  if (const auto more = it->find("more_auth_files"); more != it->end()) {
    if (!more->is_array()) return Bad("\"more_auth_files\" is not an array");
    for (const json& file : *more) {
      std::string path;
      RETURN_IF_ERROR(TakePath(json{{"more_auth_files", file}}, "more_auth_files", &path));
      registry->more_auth_files.push_back(std::move(path));
    }
  }
  return TakeBool(*it, "plain_http", &registry->plain_http);
}

Status TakeRegistries(const json& root, std::map<std::string, RegistryAccess>* registries) {
  const auto it = root.find("registries");
  if (it == root.end()) return Status();
  if (!it->is_object()) return Bad("\"registries\" is not an object");
  for (const auto& [host, fields] : it->items()) {
    if (!fields.is_object()) return Bad("an entry of \"registries\" is not an object");
    RETURN_IF_ERROR(CheckFields(fields, {"ca_file", "client_cert", "client_key", "insecure"}));
    RegistryAccess& access = (*registries)[host];
    RETURN_IF_ERROR(TakePath(fields, "ca_file", &access.ca_file));
    RETURN_IF_ERROR(TakePath(fields, "client_cert", &access.client_cert));
    RETURN_IF_ERROR(TakePath(fields, "client_key", &access.client_key));
    RETURN_IF_ERROR(TakeBool(fields, "insecure", &access.insecure));
  }
  return Status();
}

Status TakeProxy(const json& root, cachecore::ProxySettings* proxy) {
  const auto it = root.find("proxy");
  if (it == root.end()) return Status();
  if (!it->is_object()) return Bad("\"proxy\" is not an object");
  RETURN_IF_ERROR(CheckFields(*it, {"http", "https", "no"}));
  *proxy = {};
  RETURN_IF_ERROR(TakeString(*it, "http", &proxy->http));
  RETURN_IF_ERROR(TakeString(*it, "https", &proxy->https));
  return TakeString(*it, "no", &proxy->no);
}

Status TakeVerity(const json& root, SourceConfig* config) {
  std::string digest;
  RETURN_IF_ERROR(TakeString(root, "verity", &digest));
  RETURN_IF_ERROR(TakeString(root, "merkle", &config->merkle));
  if (root.contains("verity")) {
    ASSIGN_OR_RETURN(config->verity, cachecore::ParseDigest(digest));
  }
  if (config->merkle.empty()) return Status();
  return CheckObjectKey(config->merkle).WithContext("\"merkle\"");
}

// Numbers that JSON's own checks let through.
Status TakeNumber(const json& object, const char* name, uint64_t max, uint64_t* value) {
  const auto it = object.find(name);
  if (it == object.end()) return Status();
  if (!it->is_number_unsigned() || it->get<uint64_t>() > max) {
    return Bad(std::string("\"") + name + "\" is not a number that fits");
  }
  *value = it->get<uint64_t>();
  return Status();
}

Status TakeFiles(const json& root, std::vector<LocalFile>* files) {
  const auto it = root.find("files");
  if (it == root.end()) return Status();
  if (!it->is_array()) return Bad("\"files\" is not a list");
  for (const json& entry : *it) {
    if (!entry.is_object()) return Bad("an entry of \"files\" is not an object");
    RETURN_IF_ERROR(CheckFields(entry, {"path", "url", "owner", "inode"}));
    LocalFile file;
    std::string path;
    RETURN_IF_ERROR(TakeString(entry, "path", &path));
    ASSIGN_OR_RETURN(file.pin.path, cachecore::PercentDecode(path));
    RETURN_IF_ERROR(TakeString(entry, "url", &file.url));
    uint64_t owner = 0;
    RETURN_IF_ERROR(TakeNumber(entry, "owner", std::numeric_limits<uid_t>::max(), &owner));
    RETURN_IF_ERROR(
        TakeNumber(entry, "inode", std::numeric_limits<uint64_t>::max(), &file.pin.inode));
    if (!file.pin.path.starts_with('/')) return Bad("a path of \"files\" is not absolute");
    file.pin.owner = static_cast<uid_t>(owner);
    using Links = cachecore::FilePin::Links;
    file.pin.links = file.url.empty() ? Links::kOfOwner : Links::kNone;
    files->push_back(std::move(file));
  }
  return Status();
}

Result<std::string> ReadSmallFile(const cachecore::UniqueFd& fd, const std::string& path) {
  std::string text(cachecore::kSourceFileBytesMax + 1, '\0');
  size_t used = 0;
  while (used < text.size()) {
    const ssize_t got = read(fd.get(), text.data() + used, text.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Status::FromErrno(errno, path);
    if (got == 0) break;
    used += static_cast<size_t>(got);
  }
  if (used > cachecore::kSourceFileBytesMax) return Bad(path + ": larger than 1 MiB");
  text.resize(used);
  return text;
}

}  // namespace

Result<SourceConfig> ParseSourceConfig(std::string_view text) {
  const json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return Bad("not a JSON object");
  const auto version = root.find("version");
  if (version == root.end() || *version != 1) return Bad("\"version\" is not 1");
  RETURN_IF_ERROR(CheckFields(
      root, {"version", "origins", "query", "ca_file", "client_cert", "client_key", "headers_file",
             "s3", "oci", "registries", "proxy", "verity", "merkle", "files"}));
  SourceConfig config;
  config.stamp = std::to_string(std::hash<std::string_view>{}(text));
  const auto origins = root.find("origins");
  if (origins == root.end() || !origins->is_array() || origins->empty() ||
      origins->size() > cachecore::kOriginsMax) {
    return Bad("\"origins\" is not a list of 1 to 16 URLs");
  }
  for (const json& origin : *origins) {
    if (!origin.is_string()) return Bad("an origin is not a string");
    config.origins.push_back(origin.get<std::string>());
    RETURN_IF_ERROR(CheckOrigin(config.origins.back()));
  }
  RETURN_IF_ERROR(TakeString(root, "query", &config.query));
  RETURN_IF_ERROR(TakePath(root, "ca_file", &config.ca_file));
  RETURN_IF_ERROR(TakeCredentialFiles(root, &config.files));
  RETURN_IF_ERROR(TakeS3(root, &config.s3));
  RETURN_IF_ERROR(TakeRegistry(root, &config.registry));
  RETURN_IF_ERROR(TakeRegistries(root, &config.registries));
  RETURN_IF_ERROR(TakeProxy(root, &config.proxy));
  RETURN_IF_ERROR(TakeVerity(root, &config));
  RETURN_IF_ERROR(TakeFiles(root, &config.local));
  if (!config.query.empty() && (config.query[0] != '?' || !IsUrlText(config.query) ||
                                config.query.find('#') != std::string::npos)) {
    return Bad("\"query\" is not a '?' and URL text");
  }
  if (config.query.size() > cachecore::kQueryBytesMax) {
    return Bad("\"query\" is longer than 16384 bytes");
  }
  return config;
}

std::optional<cachecore::FilePin> SourceConfig::FindFile(const std::string& path) const {
  const auto is_it = [&path](const LocalFile& file) {
    return file.url.empty() && file.pin.path == path;
  };
  const auto found = std::find_if(local.begin(), local.end(), is_it);
  if (found != local.end()) return found->pin;
  // A source of before owners were noted.
  std::vector<std::string> all = registry.AuthFiles();
  all.insert(all.end(), {ca_file, files.client_cert, files.client_key, files.headers,
                         s3.credentials_file, s3.config_file});
  for (const std::string& known : all) {
    if (!path.empty() && known == path) {
      return cachecore::FilePin{path, 0, 0, cachecore::FilePin::Links::kOfOwner};
    }
  }
  return std::nullopt;
}

Result<SourceConfig> ReadSourceConfig(const cachecore::UniqueFd& file, const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(file, path));
  auto config = ParseSourceConfig(text);
  if (!config.ok()) return std::move(config).status().WithContext(path);
  return config;
}

Status CheckVolumeKey(const std::string& volume) {
  if (volume.empty() || volume.find('/') != std::string::npos || volume[0] == '.') {
    return Bad("volume key: cannot name a source file");
  }
  return Status();
}

Result<SourceConfig> LoadSourceConfig(const std::string& dir, const std::string& volume) {
  RETURN_IF_ERROR(CheckVolumeKey(volume));
  const std::string path = dir + "/" + volume + ".json";
  const cachecore::UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return Status::FromErrno(errno, path);
  return ReadSourceConfig(file, path);
}

Status CheckObjectKey(std::string_view key) {
  if (key.empty() || !IsUrlText(key) || key.find_first_of("/\\?#") != std::string_view::npos) {
    return Bad("object key: not one segment of a URL");
  }
  // Servers decode first and walk directories later, so the decoded form is what must be harmless.
  ASSIGN_OR_RETURN(const std::string decoded, cachecore::PercentDecode(key));
  if (decoded == "." || decoded == ".." || decoded.find('/') != std::string::npos) {
    return Bad("object key: names a directory");
  }
  return Status();
}

Result<OriginScheme> OriginSchemeOf(std::string_view url) {
  if (url.starts_with("http://") || url.starts_with("https://")) return OriginScheme::kHttp;
  if (url.starts_with("s3://")) return OriginScheme::kS3;
  if (url.starts_with("oci://") || url.starts_with("oci+http://")) return OriginScheme::kRegistry;
  if (url.starts_with("file:///")) return OriginScheme::kFile;
  return Bad("an origin is not http://, https://, s3://, oci:// or file:///");
}

std::string RedactUrl(std::string_view url) {
  const std::string shown = cachecore::WithoutUser(url);
  return shown.substr(0, shown.find_first_of("?#"));
}

std::string ShortUrl(std::string url) {
  constexpr size_t kTail = cachecore::kShownUrlBytesMax / 4;
  if (url.size() <= cachecore::kShownUrlBytesMax) return url;
  const std::string tail = url.substr(url.size() - kTail);
  return url.substr(0, cachecore::kShownUrlBytesMax - kTail - 3) + "..." + tail;
}

}  // namespace fetcher
