// RegistryAccess: how registries are reached and with whose credentials; RegistryOptions: its
// flags.
//
// Model    only paths: the program that asks a registry reads the files, each time, so a
//          renewed credential counts at once and none is ever handed on.
// Errors   EINVAL or the errno of a file that was asked for and can't be read.
// Threads  immutable values once made.
// See      docs/sources.md, "Registries".

#ifndef HOST_REGISTRIES_REGISTRY_OPTIONS_H_
#define HOST_REGISTRIES_REGISTRY_OPTIONS_H_

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "cachecore/base/status.h"

namespace host {

struct RegistryAccess {
  std::string auth_file;               // Absolute path of a docker config.json; "": anonymous.
  bool has_default_auth_file = false;  // It was found, not given.
  std::vector<std::string>
      more_auth_files;  // Asked in order where that says nothing of a registry.
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

// Where skopeo looks for what it, podman and docker have been logged in with, in its order; those
// that are there.  $REGISTRY_AUTH_FILE alone, when it is set.
std::vector<std::string> DefaultAuthFiles();

}  // namespace host

#endif  // HOST_REGISTRIES_REGISTRY_OPTIONS_H_
