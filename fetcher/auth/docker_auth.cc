#include "fetcher/auth/docker_auth.h"

#include <openssl/evp.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <optional>

#include "cachecore/url/url.h"

namespace fetcher {
namespace {

using cachecore::Result;
using cachecore::Status;
using nlohmann::json;

constexpr char kDockerHub[] = "docker.io";
// What docker calls its registry in its files and to its helpers.
constexpr char kDockerHubKey[] = "index.docker.io";
constexpr char kDockerHubServer[] = "https://index.docker.io/v1/";

std::string Text(const json& object, const char* key) {
  if (!object.is_object()) return "";
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

std::optional<std::string> DecodeBase64(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  if (text.size() % 4 != 0) return std::nullopt;
  std::string decoded(text.size() / 4 * 3 + 1, '\0');
  const int size = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(decoded.data()),
                                   reinterpret_cast<const unsigned char*>(text.data()),
                                   static_cast<int>(text.size()));
  if (size < 0) return std::nullopt;
  // EVP_DecodeBlock takes the padding for zeros.
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  decoded.resize(static_cast<size_t>(size) - padding);
  return decoded;
}

// "https://host/v1/" as old files have it -> "host".
std::string KeyOf(std::string name) {
  name = std::string(cachecore::AfterScheme(name));
  while (name.ends_with("/")) name.pop_back();
  for (const char* version : {"/v1", "/v2"}) {
    if (name.ends_with(version)) name.resize(name.size() - 3);
  }
  return name == kDockerHubKey || name == "registry-1.docker.io" ? kDockerHub : name;
}

Result<RegistryCredentials> ParseEntry(const json& entry) {
  RegistryCredentials credentials;
  credentials.identity_token = Text(entry, "identitytoken");
  credentials.user = Text(entry, "username");
  credentials.password = Text(entry, "password");
  const std::string encoded = Text(entry, "auth");
  if (encoded.empty()) return credentials;
  const std::optional<std::string> decoded = DecodeBase64(encoded);
  const size_t colon = decoded ? decoded->find(':') : std::string::npos;
  if (colon == std::string::npos) {
    return Status(EINVAL, "an \"auth\" is not the base64 of user:password");
  }
  credentials.user = decoded->substr(0, colon);
  credentials.password = decoded->substr(colon + 1);
  while (credentials.password.ends_with('\0')) credentials.password.pop_back();
  return credentials;
}

// The value for the longest beginning of `path`, cut at its slashes.
template <typename Value>
const Value* FindLongest(const std::map<std::string, Value>& values, std::string path) {
  for (;;) {
    const auto found = values.find(path);
    if (found != values.end()) return &found->second;
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos) return nullptr;
    path.resize(slash);
  }
}

bool IsHelperName(const std::string& name) {
  return !name.empty() && name.find_first_not_of(
                              "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvw"
                              "xyz0123456789._-") == std::string::npos;
}

}  // namespace

Result<DockerAuth> DockerAuth::Parse(std::string_view text) {
  const json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return Status(EINVAL, "not a JSON object");
  DockerAuth parsed;
  if (const auto auths = root.find("auths"); auths != root.end()) {
    if (!auths->is_object()) return Status(EINVAL, "\"auths\" is not an object");
    for (const auto& [name, entry] : auths->items()) {
      ASSIGN_OR_RETURN(RegistryCredentials credentials, ParseEntry(entry));
      if (!credentials.empty()) parsed.entries_[KeyOf(name)] = std::move(credentials);
    }
  }
  if (const auto helpers = root.find("credHelpers"); helpers != root.end()) {
    if (!helpers->is_object()) return Status(EINVAL, "\"credHelpers\" is not an object");
    for (const auto& [name, helper] : helpers->items()) {
      if (!helper.is_string() || !IsHelperName(helper.get<std::string>())) {
        return Status(EINVAL, "a credential helper is not a name");
      }
      parsed.helpers_[KeyOf(name)] = helper.get<std::string>();
    }
  }
  parsed.store_ = Text(root, "credsStore");
  if (!parsed.store_.empty() && !IsHelperName(parsed.store_)) {
    return Status(EINVAL, "\"credsStore\" is not a name");
  }
  return parsed;
}

Result<DockerAuth> DockerAuth::ParseOldest(std::string_view text) {
  const json auths = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!auths.is_object()) return Status(EINVAL, "not a JSON object");
  return Parse(json({{"auths", auths}}).dump(-1, ' ', false, json::error_handler_t::replace));
}

AuthChoice DockerAuth::Find(const std::string& registry, const std::string& repository) const {
  const std::string path = KeyOf(registry) + "/" + repository;
  AuthChoice choice;
  choice.server = KeyOf(registry) == kDockerHub ? kDockerHubServer : registry;
  if (const auto* credentials = FindLongest(entries_, path)) choice.credentials = *credentials;
  const std::string* helper = FindLongest(helpers_, path);
  choice.helper = helper != nullptr ? *helper : store_;
  return choice;
}

Result<RegistryCredentials> ParseHelperAnswer(std::string_view text) {
  const json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  const std::string secret = Text(root, "Secret");
  if (secret.empty()) return Status(EINVAL, "no credentials in its answer");
  RegistryCredentials credentials;
  const std::string user = Text(root, "Username");
  if (user == "<token>") {
    credentials.identity_token = secret;
  } else {
    credentials.user = user;
    credentials.password = secret;
  }
  return credentials;
}

std::string ApiHost(const std::string& registry) {
  return registry == kDockerHub || registry == kDockerHubKey ? "registry-1.docker.io" : registry;
}

}  // namespace fetcher
