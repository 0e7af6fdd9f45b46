#include "host/registries/registry_options.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "host/registries/image_reference.h"

namespace host {

using cachecore::Result;
using cachecore::Status;

namespace {

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

}  // namespace

std::vector<std::string> DefaultAuthFiles() {
  if (std::string chosen = Variable("REGISTRY_AUTH_FILE"); !chosen.empty()) return {chosen};
  const std::string runtime = Variable("XDG_RUNTIME_DIR");
  const std::string settings = Variable("XDG_CONFIG_HOME");
  const std::string docker = Variable("DOCKER_CONFIG");
  const std::string home = Variable("HOME");
  std::vector<std::string> files = {
      (runtime.empty() ? "/run/containers/" + std::to_string(getuid()) : runtime + "/containers") +
      "/auth.json"};
  const auto add = [&files, &home](const std::string& directory, const char* in_home,
                                   const char* name) {
    if (!directory.empty()) files.push_back(directory + name);
    if (directory.empty() && !home.empty()) files.push_back(home + in_home + name);
  };
  add(settings, "/.config", "/containers/auth.json");
  add(docker, "/.docker", "/config.json");
  add("", "", "/.dockercfg");
  std::erase_if(files, [](const auto& path) { return access(path.c_str(), R_OK) != 0; });
  return files;
}

void RegistryOptions::AddTo(CLI::App* app) {
  app->add_option("--auth-file", auth_file,
                  "Registry credentials, as docker login writes them (default: as skopeo's)")
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
  std::vector<std::string> files = {auth_file};
  if (auth_file.empty()) files = DefaultAuthFiles();
  for (std::string& file : files) {
    if (access(file.c_str(), R_OK) != 0) return Status::FromErrno(errno, "auth file " + file);
    // Not resolved further: a link may be turned to renewed credentials.
    file = std::filesystem::absolute(file).lexically_normal().string();
  }
  if (files.empty()) return made;
  made.auth_file = files.front();
  made.more_auth_files.assign(files.begin() + 1, files.end());
  return made;
}

}  // namespace host
