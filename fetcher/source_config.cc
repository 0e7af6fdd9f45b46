#include "fetcher/source_config.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "cachecore/unique_fd.h"

namespace fetcher {
namespace {

using cachecore::Result;
using cachecore::Status;
using nlohmann::json;

constexpr size_t kMaxFileSize = 64 << 10;
constexpr size_t kMaxOrigins = 16;
constexpr size_t kMaxUrlSize = 2048;

Status Bad(const std::string& what) { return Status(EINVAL, what); }

// Space, control and non-ASCII bytes never stand in a URL.
bool IsUrlText(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7f; });
}

Status CheckOrigin(const std::string& url) {
  const bool http = url.starts_with("http://") || url.starts_with("https://");
  if (!http && !url.starts_with("file:///")) {
    return Bad("an origin is not http://, https:// or file:///");
  }
  if (url.size() > kMaxUrlSize) return Bad("an origin is longer than 2048 bytes");
  if (!IsUrlText(url)) return Bad("an origin has a byte that no URL may have");
  if (url.find_first_of("?#") != std::string::npos) {
    return Bad("an origin has a query or a fragment (a query goes into \"query\")");
  }
  const size_t host = url.find("://") + 3;
  if (http && url.find('/', host) <= host) return Bad("an origin has no host");
  if (url.back() != '/') return Bad("an origin does not end in '/'");
  return Status();
}

// Sets *text from an optional string field.
Status TakeString(const json& object, const char* name, std::string* text) {
  const auto it = object.find(name);
  if (it == object.end()) return Status();
  if (!it->is_string()) return Bad(std::string("\"") + name + "\" is not a string");
  *text = it->get<std::string>();
  return Status();
}

Result<std::string> ReadSmallFile(const std::string& path) {
  const cachecore::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return Status::FromErrno(errno, path);
  std::string text(kMaxFileSize + 1, '\0');
  size_t used = 0;
  while (used < text.size()) {
    const ssize_t got = read(fd.get(), text.data() + used, text.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Status::FromErrno(errno, path);
    if (got == 0) break;
    used += static_cast<size_t>(got);
  }
  if (used > kMaxFileSize) return Bad(path + ": larger than 64 KiB");
  text.resize(used);
  return text;
}

}  // namespace

Result<SourceConfig> ParseSourceConfig(std::string_view text) {
  const json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return Bad("not a JSON object");
  const auto version = root.find("version");
  if (version == root.end() || *version != 1) return Bad("\"version\" is not 1");
  for (const auto& [name, value] : root.items()) {
    if (name != "version" && name != "origins" && name != "query" && name != "ca_file") {
      return Bad("there is a field that version 1 does not have");
    }
  }
  SourceConfig config;
  const auto origins = root.find("origins");
  if (origins == root.end() || !origins->is_array() || origins->empty() ||
      origins->size() > kMaxOrigins) {
    return Bad("\"origins\" is not a list of 1 to 16 URLs");
  }
  for (const json& origin : *origins) {
    if (!origin.is_string()) return Bad("an origin is not a string");
    config.origins.push_back(origin.get<std::string>());
    RETURN_IF_ERROR(CheckOrigin(config.origins.back()));
  }
  RETURN_IF_ERROR(TakeString(root, "query", &config.query));
  RETURN_IF_ERROR(TakeString(root, "ca_file", &config.ca_file));
  if (!config.query.empty() && (config.query[0] != '?' || !IsUrlText(config.query) ||
                                config.query.find('#') != std::string::npos)) {
    return Bad("\"query\" is not a '?' and URL text");
  }
  if (config.query.size() > kMaxUrlSize) return Bad("\"query\" is longer than 2048 bytes");
  if (config.ca_file.find('\0') != std::string::npos) return Bad("\"ca_file\" has a NUL byte");
  return config;
}

Result<SourceConfig> LoadSourceConfig(const std::string& dir, const std::string& volume) {
  if (volume.empty() || volume.find('/') != std::string::npos || volume[0] == '.') {
    return Bad("volume key: cannot name a source file");
  }
  const std::string path = dir + "/" + volume + ".json";
  ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path));
  auto config = ParseSourceConfig(text);
  if (!config.ok()) return std::move(config).status().WithContext(path);
  return config;
}

Status CheckObjectKey(std::string_view key) {
  if (key.empty() || !IsUrlText(key) || key.find_first_of("/\\?#") != std::string_view::npos) {
    return Bad("object key: not one segment of a URL");
  }
  // Servers decode first and walk directories later, so the decoded form is what must be harmless.
  ASSIGN_OR_RETURN(const std::string decoded, PercentDecode(key));
  if (decoded == "." || decoded == ".." || decoded.find('/') != std::string::npos) {
    return Bad("object key: names a directory");
  }
  return Status();
}

Result<std::string> PercentDecode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    const std::string digits(text.substr(i + 1, 2));
    if (digits.size() != 2 || !std::isxdigit(static_cast<unsigned char>(digits[0])) ||
        !std::isxdigit(static_cast<unsigned char>(digits[1])) || digits == "00") {
      return Bad("a '%' that is no escape");
    }
    out.push_back(static_cast<char>(std::stoi(digits, nullptr, 16)));
    i += 2;
  }
  return out;
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

}  // namespace fetcher
