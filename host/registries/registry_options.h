// RegistryAccess: how registries are reached and with whose credentials; RegistryOptions: its
// flags.
//
// Model    only paths: what is in the files is read by whoever asks a registry, each time, so a
//          renewed credential counts at once and none is ever handed on.
// Errors   EINVAL or the errno of a file that was asked for and can't be read.
// Threads  immutable values once made.
// See      docs/sources.md, "Registries".

#ifndef CLI_REGISTRY_OPTIONS_H_
#define CLI_REGISTRY_OPTIONS_H_

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "cachecore/status.h"

namespace cli {

struct RegistryAccess {
  std::string auth_file;  // Absolute path of a docker config.json; "": anonymous.
  bool has_default_auth_file = false;  // It was found, not given.
  bool plain_http = false;
  std::string ca_file;  // These are absolute paths or "".
  std::string client_cert;
  std::string client_key;
  std::vector<std::string> mirrors;  // HOST[:PORT][/PREFIX], in order of preference.
};

struct RegistryOptions {
  std::string auth_file;
  bool plain_http = false;
  std::vector<std::string> mirrors;

  void AddTo(CLI::App* app);
  // For verbs that take an image from wherever it is.
  void AddMirrorTo(CLI::App* app);
  // EINVAL when one was given, where there is no registry.
  cachecore::Status CheckUnused() const;
  // Without certificates: those belong to verbs' options for https in general.
  cachecore::Result<RegistryAccess> Make() const;
};

// Where docker, podman and skopeo keep what they have been logged in with: $REGISTRY_AUTH_FILE,
// $DOCKER_CONFIG/config.json, ~/.docker/config.json, the runtime directory's containers/auth.json;
// "" when there is none.
std::string DefaultAuthFile();

}  // namespace cli

#endif  // CLI_REGISTRY_OPTIONS_H_
