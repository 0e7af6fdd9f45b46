#include "host/registries/registry_policy.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <vector>

#include "cachecore/base/json_fields.h"
#include "cachecore/system/files.h"
#include "host/registries/registries_conf.h"

namespace host {
namespace {

using cachecore::JsonField;
using cachecore::JsonString;
using cachecore::ReadJsonFile;
using cachecore::Status;
using nlohmann::json;

constexpr char kUserPolicy[] = "/.config/containers/policy.json";
constexpr char kMachinePolicy[] = "/etc/containers/policy.json";

// The directory, without symbolic links, and those above it.
std::vector<std::string> ScopesOfLayout(const ImageReference& image) {
  const std::unique_ptr<char, void (*)(void*)> real(realpath(image.directory.c_str(), nullptr),
                                                    std::free);
  std::string directory = real ? real.get() : image.directory;
  std::vector<std::string> scopes;
  for (; !directory.empty(); directory.resize(directory.rfind('/'))) scopes.push_back(directory);
  scopes.push_back("");
  return scopes;
}

// The scopes that an image is in, the narrowest first.
std::vector<std::string> ScopesOf(const ImageReference& image) {
  if (image.kind == ImageReference::Kind::kLayout) return ScopesOfLayout(image);
  std::string name = FullName(image);
  std::vector<std::string> scopes = {name};
  const size_t slash_of_last = name.rfind('/');
  name.resize(std::min(name.find('@'), name.size()));
  name.resize(std::min(name.find(':', slash_of_last), name.size()));
  for (;;) {
    scopes.push_back(name);
    const size_t slash = name.rfind('/');
    if (slash == std::string::npos) break;
    name.resize(slash);
  }
  const std::string host = name.substr(0, name.find(':'));
  for (size_t dot = host.find('.'); dot != std::string::npos; dot = host.find('.', dot + 1)) {
    scopes.push_back("*" + host.substr(dot));
  }
  scopes.push_back("");
  return scopes;
}

}  // namespace

std::string RegistryPolicyFile() {
  const char* const home = std::getenv("HOME");
  const std::string users = home != nullptr ? std::string(home) + kUserPolicy : "";
  if (!users.empty() && access(users.c_str(), F_OK) == 0) return users;
  return access(kMachinePolicy, F_OK) == 0 ? kMachinePolicy : "";
}

Status CheckRegistryPolicy(const ImageReference& image) {
  const std::string file = RegistryPolicyFile();
  if (file.empty()) return {};
  ASSIGN_OR_RETURN(const json policy, ReadJsonFile(file));
  const bool is_layout = image.kind == ImageReference::Kind::kLayout;
  const json& scopes = JsonField(JsonField(policy, "transports"), is_layout ? "oci" : "docker");
  const json* requirements = nullptr;
  std::string where = "default";
  for (const std::string& scope : ScopesOf(image)) {
    if (!scopes.contains(scope)) continue;
    requirements = &scopes[scope];
    where = "the scope '" + scope + "'";
    break;
  }
  if (requirements == nullptr && policy.contains("default")) requirements = &policy["default"];
  if (requirements == nullptr || !requirements->is_array() || requirements->empty()) {
    return Status(EBADMSG, file + " has no rule for " + image.Text());
  }
  for (const json& requirement : *requirements) {
    const std::string type = JsonString(requirement, "type");
    if (type == "insecureAcceptAnything") continue;
    if (type == "reject") {
      return Status(EACCES, image.Text() + " is rejected by " + file + " (" + where + ")");
    }
    return Status(ENOTSUP, image.Text() + ": " + file + " (" + where + ") wants it " + type +
                               ", which Holdfast does not check; check the image before, and "
                               "accept it there with insecureAcceptAnything");
  }
  return {};
}

}  // namespace host
