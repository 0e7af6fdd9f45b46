#include "cli/registry_options.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "cli/image_reference.h"

namespace cli {

using cachecore::Result;
using cachecore::Status;

namespace {

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

}  // namespace

std::string DefaultAuthFile() {
  if (std::string chosen = Variable("REGISTRY_AUTH_FILE"); !chosen.empty()) return chosen;
  const std::string docker = Variable("DOCKER_CONFIG");
  const std::string home = Variable("HOME");
  const std::string runtime = Variable("XDG_RUNTIME_DIR");
  std::vector<std::string> candidates;
  if (!docker.empty()) candidates.push_back(docker + "/config.json");
  if (!home.empty()) candidates.push_back(home + "/.docker/config.json");
  if (!runtime.empty()) candidates.push_back(runtime + "/containers/auth.json");
  candidates.push_back("/run/containers/" + std::to_string(getuid()) + "/auth.json");
  for (const std::string& path : candidates) {
    if (access(path.c_str(), R_OK) == 0) return path;
  }
  return "";
}

void RegistryOptions::AddTo(CLI::App* app) {
  app->add_option("--auth-file", auth_file,
                  "Registry credentials, as docker login writes them (default: docker's)")
      ->type_name("FILE");
  app->add_flag("--plain-http", plain_http, "Reach the registry without TLS");
}

void RegistryOptions::AddMirrorTo(CLI::App* app) {
  app->add_option("--mirror", mirrors, "A registry that has the same images; repeatable")
      ->type_name("REGISTRY[/PREFIX]")
      ->expected(1)
      ->take_all()
      ->allow_extra_args(false);  // Else it takes the image after it, where a command follows.
}

Status RegistryOptions::CheckUnused() const {
  if (auth_file.empty() && !plain_http && mirrors.empty()) return {};
  return Status(EINVAL, "--auth-file, --plain-http and --mirror are for images in registries");
}

Result<RegistryAccess> RegistryOptions::Make() const {
  RegistryAccess made;
  made.plain_http = plain_http;
  made.mirrors = mirrors;
  for (const std::string& mirror : mirrors) RETURN_IF_ERROR(CheckMirror(mirror));
  made.has_default_auth_file = auth_file.empty();
  const std::string chosen = auth_file.empty() ? DefaultAuthFile() : auth_file;
  if (chosen.empty()) return made;
  if (access(chosen.c_str(), R_OK) != 0) return Status::FromErrno(errno, "auth file " + chosen);
  // Not resolved further: a link may be turned to renewed credentials.
  made.auth_file = std::filesystem::absolute(chosen).lexically_normal().string();
  return made;
}

}  // namespace cli
