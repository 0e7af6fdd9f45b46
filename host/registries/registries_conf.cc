#include "host/registries/registries_conf.h"

#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <optional>
#include <utility>

#include "cachecore/system/files.h"
#include "cachecore/url/url.h"

namespace host {
namespace {

using cachecore::ListDirectory;
using cachecore::ReadFile;
using cachecore::Result;
using cachecore::Status;

constexpr char kMachine[] = "/etc/containers";
constexpr char kFile[] = "/registries.conf";
constexpr char kMoreFiles[] = "/registries.conf.d";
constexpr char kDockerHub[] = "docker.io";

std::string UsersDirectory() {
  const char* const home = std::getenv("HOME");
  return home != nullptr && home[0] != '\0' ? std::string(home) + "/.config/containers" : "";
}

bool Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

bool EndsName(const std::string& name, size_t at) {
  return at == name.size() || std::string_view(":/@").find(name[at]) != std::string_view::npos;
}

// How much of `name` a prefix stands for.
std::optional<size_t> MatchOf(const std::string& name, const std::string& prefix) {
  if (!prefix.starts_with("*.")) {
    if (name.starts_with(prefix) && EndsName(name, prefix.size())) return prefix.size();
    return std::nullopt;
  }
  const size_t at = name.find(prefix.substr(1));
  if (at == std::string::npos || at > name.find('/')) return std::nullopt;
  const size_t end = at + prefix.size() - 1;
  return EndsName(name, end) ? std::optional<size_t>(end) : std::nullopt;
}

// Without tag and digest.
std::string RepositoryOf(std::string name) {
  name.resize(std::min(name.size(), name.find('@')));
  const size_t slash = name.rfind('/');
  const size_t colon = name.find(':', slash == std::string::npos ? 0 : slash);
  name.resize(std::min(name.size(), colon));
  return name;
}

}  // namespace

std::string FullName(const ImageReference& image) {
  std::string registry = image.registry == "index.docker.io" ? kDockerHub : image.registry;
  const bool is_official =
      registry == kDockerHub && image.repository.find('/') == std::string::npos;
  return registry + "/" + (is_official ? "library/" : "") + image.repository +
         (image.digest.empty() ? ":" + image.tag : "@" + image.digest);
}

class RegistriesConfReader {
 public:
  RegistriesConfReader(const std::string& file, RegistriesConf* conf) : file_(file), conf_(*conf) {}

  Status Take(const std::string& text);

 private:
  Status Bad(const std::string& why) const { return Status(EBADMSG, file_ + ": " + why); }
  // The fetcher asks those helpers that the auth file names, and no others.
  Status CheckHelpers(const toml::table& root) const;
  // Version 1 of the format: [registries.insecure] and [registries.block].
  void TakeOldList(const toml::table& root, const char* list, bool blocks);
  Result<RegistriesConf::Endpoint> TakeEndpoint(const toml::table& table) const;
  Status TakeRegistry(const toml::table& table);

  const std::string file_;
  RegistriesConf& conf_;
};

Status RegistriesConfReader::Take(const std::string& text) {
  const toml::parse_result parsed = toml::parse(text);
  if (!parsed) return Bad(std::string(parsed.error().description()));
  const toml::table& root = parsed.table();
  RETURN_IF_ERROR(CheckHelpers(root));
  for (const auto& [list, blocks] : {std::pair("insecure", false), std::pair("block", true)}) {
    TakeOldList(root, list, blocks);
  }
  const toml::array* const registries = root["registry"].as_array();
  if (root.contains("registry") && registries == nullptr) return Bad("registry is no list");
  for (size_t i = 0; registries != nullptr && i < registries->size(); ++i) {
    const toml::table* const registry = registries->get(i)->as_table();
    if (registry == nullptr) return Bad("a registry is no table");
    RETURN_IF_ERROR(TakeRegistry(*registry));
  }
  return {};
}

Status RegistriesConfReader::CheckHelpers(const toml::table& root) const {
  const toml::array* const helpers = root["credential-helpers"].as_array();
  for (size_t i = 0; helpers != nullptr && i < helpers->size(); ++i) {
    const std::string helper = helpers->get(i)->value_or(std::string());
    if (helper == "containers-auth.json") continue;
    return Status(ENOTSUP, file_ + " names the credential helper " + helper +
                               " for every registry, which the fetcher does not ask; name it in "
                               "credHelpers of the auth file instead");
  }
  return {};
}

void RegistriesConfReader::TakeOldList(const toml::table& root, const char* list, bool blocks) {
  const toml::array* const names = root["registries"][list]["registries"].as_array();
  for (size_t i = 0; names != nullptr && i < names->size(); ++i) {
    const std::string name = names->get(i)->value_or(std::string());
    RegistriesConf::Entry& entry = conf_.entries_[name];
    entry.file = file_;
    entry.own.location = name;
    (blocks ? entry.is_blocked : entry.own.is_insecure) = true;
  }
}

Result<RegistriesConf::Endpoint> RegistriesConfReader::TakeEndpoint(
    const toml::table& table) const {
  RegistriesConf::Endpoint endpoint;
  endpoint.location = table["location"].value_or(std::string());
  while (endpoint.location.ends_with('/')) endpoint.location.pop_back();
  if (!cachecore::UrlScheme(endpoint.location).empty()) {
    return Bad("the location " + endpoint.location + " has a scheme; it is HOST[:PORT][/PATH]");
  }
  endpoint.is_insecure = table["insecure"].value_or(false);
  endpoint.pull = table["pull-from-mirror"].value_or(std::string());
  return endpoint;
}

Status RegistriesConfReader::TakeRegistry(const toml::table& table) {
  RegistriesConf::Entry entry;
  entry.file = file_;
  ASSIGN_OR_RETURN(entry.own, TakeEndpoint(table));
  std::string prefix = table["prefix"].value_or(std::string());
  while (prefix.ends_with('/')) prefix.pop_back();
  if (prefix.empty()) prefix = entry.own.location;
  if (prefix.empty()) return Bad("a registry has neither prefix nor location");
  if (entry.own.location.empty() && !prefix.starts_with("*.")) entry.own.location = prefix;
  entry.is_blocked = table["blocked"].value_or(false);
  entry.mirrors_by_digest_only = table["mirror-by-digest-only"].value_or(false);
  const toml::array* const mirrors = table["mirror"].as_array();
  for (size_t i = 0; mirrors != nullptr && i < mirrors->size(); ++i) {
    const toml::table* const mirror = mirrors->get(i)->as_table();
    if (mirror == nullptr) return Bad("a mirror is no table");
    ASSIGN_OR_RETURN(RegistriesConf::Endpoint endpoint, TakeEndpoint(*mirror));
    if (endpoint.location.empty()) return Bad("a mirror has no location");
    entry.mirrors.push_back(std::move(endpoint));
  }
  conf_.entries_[prefix] = std::move(entry);
  return {};
}

Result<RegistriesConf> RegistriesConf::Parse(
    const std::vector<std::pair<std::string, std::string>>& texts_by_file) {
  RegistriesConf conf;
  for (const auto& [file, text] : texts_by_file) {
    RETURN_IF_ERROR(RegistriesConfReader(file, &conf).Take(text));
  }
  return conf;
}

Result<RegistriesConf> RegistriesConf::Load() {
  const std::string users = UsersDirectory();
  std::vector<std::string> files;
  if (!users.empty() && Exists(users + kFile)) {
    files.push_back(users + kFile);
  } else if (Exists(std::string(kMachine) + kFile)) {
    files.push_back(std::string(kMachine) + kFile);
  }
  for (const std::string& directory : {std::string(kMachine), users}) {
    if (directory.empty()) continue;
    for (const std::string& name : ListDirectory(directory + kMoreFiles)) {
      if (name.ends_with(".conf")) files.push_back(directory + kMoreFiles + "/" + name);
    }
  }
  std::vector<std::pair<std::string, std::string>> texts;
  for (const std::string& file : files) {
    ASSIGN_OR_RETURN(std::string text, ReadFile(file));
    texts.emplace_back(file, std::move(text));
  }
  return Parse(texts);
}

Result<std::vector<PullSource>> RegistriesConf::SourcesOf(const ImageReference& image) const {
  const std::string name = FullName(image);
  const Entry* found = nullptr;
  size_t matched = 0;
  size_t longest = 0;
  for (const auto& [prefix, entry] : entries_) {
    const std::optional<size_t> match = MatchOf(name, prefix);
    if (!match || std::max(*match, prefix.size()) <= longest) continue;
    found = &entry;
    matched = *match;
    longest = std::max(*match, prefix.size());
  }
  if (found == nullptr) return std::vector<PullSource>{{RepositoryOf(name), false}};
  if (found->is_blocked) {
    return Status(EACCES, image.Text() + ": " + found->file + " blocks its registry");
  }
  std::vector<PullSource> sources;
  const auto add = [&](const Endpoint& endpoint) {
    const bool is_same = endpoint.location.empty();
    sources.push_back({RepositoryOf(is_same ? name : endpoint.location + name.substr(matched)),
                       endpoint.is_insecure});
  };
  const bool by_digest = !image.digest.empty();
  for (const Endpoint& mirror : found->mirrors) {
    const bool digest_only = found->mirrors_by_digest_only || mirror.pull == "digest-only";
    if (by_digest ? mirror.pull != "tag-only" : !digest_only) add(mirror);
  }
  add(found->own);
  return sources;
}

Result<RegistryCertificates> CertificatesOf(const std::string& registry) {
  RegistryCertificates certificates;
  const std::string users = UsersDirectory();
  for (const std::string& place : {users, std::string(kMachine), std::string("/etc/docker")}) {
    const std::string directory = place + "/certs.d/" + registry;
    if (place.empty() || !Exists(directory)) continue;
    const auto take = [&directory](const std::string& name, std::string* path) {
      if (path->empty()) {
        *path = directory + "/" + name;
        return Status();
      }
      return Status(ENOTSUP, directory + " has several " + name.substr(name.rfind('.')) +
                                 " files, of which the fetcher takes one; put them into one file");
    };
    for (const std::string& name : ListDirectory(directory)) {
      if (name.ends_with(".crt")) RETURN_IF_ERROR(take(name, &certificates.ca_file));
      if (name.ends_with(".cert")) RETURN_IF_ERROR(take(name, &certificates.client_cert));
      if (name.ends_with(".key")) RETURN_IF_ERROR(take(name, &certificates.client_key));
    }
    if (certificates.client_cert.empty() != certificates.client_key.empty()) {
      return Status(EINVAL, directory + " has a client certificate or a key without the other");
    }
    return certificates;
  }
  return certificates;
}

}  // namespace host
