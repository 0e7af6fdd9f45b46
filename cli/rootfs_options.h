// RootfsOptions: the flags that `holdfast rootfs create` and `holdfast run` have in common.
//
// Errors   EINVAL, naming the flag.
// Threads  immutable values once made.

#ifndef CLI_ROOTFS_OPTIONS_H_
#define CLI_ROOTFS_OPTIONS_H_

#include <CLI/CLI.hpp>
#include <string>

#include "cachecore/base/status.h"
#include "cli/command.h"
#include "host/containers/rootfs.h"
#include "host/registries/registry_options.h"

namespace cli {

struct RootfsOptions {
  host::InstanceOptions instance;
  host::RegistryOptions registry;
  std::string ca_file;
  std::string name;
  std::string reference;
  std::string upper;
  std::string timeout = "30s";
  bool tmpfs = false;
  host::BundleOptions bundle;

  void AddTo(CLI::App* app);
  cachecore::Result<host::RootfsRequest> Make() const;
  // After CatchStopSignals: whether the file systems of what they name answer.
  cachecore::Status CheckAnswers(const host::RootfsRequest& request) const;
};

}  // namespace cli

#endif  // CLI_ROOTFS_OPTIONS_H_
