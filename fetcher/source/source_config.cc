#include "fetcher/source_config.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <functional>
#include <initializer_list>
#include <limits>
#include <nlohmann/json.hpp>

#include "cachecore/limits.h"
#include "cachecore/parse_text.h"
#include "cachecore/unique_fd.h"

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
  const bool http = url.starts_with("http://") || url.starts_with("https://");
  const bool s3 = url.starts_with("s3://");
  const bool registry = url.starts_with("oci://");
  if (!http && !s3 && !registry && !url.starts_with("file:///")) {
    return Bad("an origin is not http://, https://, s3://, oci:// or file:///");
  }
  if (url.size() > cachecore::kUrlBytesMax) return Bad("an origin is longer than 16384 bytes");
  if (!IsUrlText(url)) return Bad("an origin has a byte that no URL may have");
  if (url.find_first_of("?#") != std::string::npos) {
    return Bad("an origin has a query or a fragment (a query goes into \"query\")");
  }
  const size_t host = url.find("://") + 3;
  const size_t path = url.find('/', host);
  if ((http || registry) && path <= host) return Bad("an origin has no host");
  if (s3 && path <= host) return Bad("an origin has no bucket");
  if (registry && (path >= url.size() - 1 || url.find('@') < path)) {
    return Bad("an oci:// origin is not REGISTRY/REPO/");
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
  RETURN_IF_ERROR(TakeString(root, "client_cert", &files->client_cert));
  RETURN_IF_ERROR(TakeString(root, "client_key", &files->client_key));
  return TakeString(root, "headers_file", &files->headers);
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
  RETURN_IF_ERROR(TakeString(*it, "credentials_file", &s3->credentials_file));
  RETURN_IF_ERROR(TakeString(*it, "config_file", &s3->config_file));
  RETURN_IF_ERROR(TakeBool(*it, "path_style", &s3->path_style));
  const auto fits = [](unsigned char c) { return std::isalnum(c) || c == '-'; };
  if (!std::all_of(s3->region.begin(), s3->region.end(), fits)) {
    return Bad("the region of \"s3\" is no word");
  }
  const bool http = s3->endpoint.starts_with("http://") || s3->endpoint.starts_with("https://");
  if (!s3->endpoint.empty() &&
      (!http || !IsUrlText(s3->endpoint) ||
       s3->endpoint.find_first_of("@?#/", s3->endpoint.find("://") + 3) != std::string::npos ||
       s3->endpoint.ends_with("//"))) {
    return Bad("the endpoint of \"s3\" is not http:// or https:// with a host and perhaps a port");
  }
  return Status();
}

Status TakeRegistry(const json& root, RegistryOptions* registry) {
  const auto it = root.find("oci");
  if (it == root.end()) return Status();
  if (!it->is_object()) return Bad("\"oci\" is not an object");
  RETURN_IF_ERROR(CheckFields(*it, {"auth_file", "plain_http"}));
  RETURN_IF_ERROR(TakeString(*it, "auth_file", &registry->auth_file));
  return TakeBool(*it, "plain_http", &registry->plain_http);
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
    RETURN_IF_ERROR(TakeNumber(entry, "inode", std::numeric_limits<uint64_t>::max(),
                               &file.pin.inode));
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
  RETURN_IF_ERROR(CheckFields(root, {"version", "origins", "query", "ca_file", "client_cert",
                                     "client_key", "headers_file", "s3", "oci", "verity",
                                     "merkle", "files"}));
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
  RETURN_IF_ERROR(TakeString(root, "ca_file", &config.ca_file));
  RETURN_IF_ERROR(TakeCredentialFiles(root, &config.files));
  RETURN_IF_ERROR(TakeS3(root, &config.s3));
  RETURN_IF_ERROR(TakeRegistry(root, &config.registry));
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
  for (const std::string& known :
       {ca_file, files.client_cert, files.client_key, files.headers, s3.credentials_file,
        s3.config_file, registry.auth_file}) {
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

std::string RedactUrl(std::string_view url) {
  url = url.substr(0, url.find_first_of("?#"));
  const size_t scheme = url.find("://");
  if (scheme == std::string_view::npos) return std::string(url);
  const size_t host = scheme + 3;
  const size_t path = std::min(url.find('/', host), url.size());
  const size_t at = url.substr(0, path).rfind('@');
  if (at == std::string_view::npos || at < host) return std::string(url);
  return std::string(url.substr(0, host)) + std::string(url.substr(at + 1));
}

std::string ShortUrl(std::string url) {
  constexpr size_t kTail = cachecore::kShownUrlBytesMax / 4;
  if (url.size() <= cachecore::kShownUrlBytesMax) return url;
  const std::string tail = url.substr(url.size() - kTail);
  return url.substr(0, cachecore::kShownUrlBytesMax - kTail - 3) + "..." + tail;
}

}  // namespace fetcher
