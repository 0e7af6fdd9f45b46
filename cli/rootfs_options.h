// RootfsOptions: the flags that `holdfast rootfs create` and `holdfast run` have in common.
//
// Errors   EINVAL, naming the flag.
// Threads  immutable values once made.

#ifndef CLI_ROOTFS_OPTIONS_H_
#define CLI_ROOTFS_OPTIONS_H_

#include <CLI/CLI.hpp>
#include <string>

#include "cachecore/status.h"
#include "cli/command.h"
#include "cli/registry_options.h"
#include "cli/rootfs.h"

namespace cli {

struct RootfsOptions {
  InstanceOptions instance;
  RegistryOptions registry;
  std::string ca_file;
  std::string name;
  std::string reference;
  std::string upper;
  std::string timeout = "30s";
  bool tmpfs = false;
  BundleOptions bundle;

  void AddTo(CLI::App* app);
  cachecore::Result<RootfsRequest> Make() const;
};

cachecore::Result<std::chrono::milliseconds> ParseTimeout(const std::string& text);

}  // namespace cli

#endif  // CLI_ROOTFS_OPTIONS_H_
