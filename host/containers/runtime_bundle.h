// WriteBundle: the OCI runtime config of a container, made of its image's config.
//
// Model    what the image says, with what the user says put over it, on a base like other runtimes'
//          defaults: namespaces of its own but for the network, few capabilities, masked /proc.
//          Names of users and groups are looked up in the root file system, inside of which links
//          are followed.
// Errors   EINVAL: the image's config, a user or a volume makes no sense; ENOENT: no such user.
// Threads  thread-safe: no state.
// See      docs/containers.md; the OCI image and runtime specifications.

#ifndef HOST_CONTAINERS_RUNTIME_BUNDLE_H_
#define HOST_CONTAINERS_RUNTIME_BUNDLE_H_

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cachecore/base/status.h"

namespace host {

struct BundleOptions {
  std::vector<std::string> command;  // In the place of the image's Cmd.
  std::vector<std::string> env;      // KEY=VALUE
  std::vector<std::string> volumes;  // SRC:DST[:ro]
  std::string user;                  // In the place of the image's.
  std::string net = "host";          // Or none.
  bool terminal = false;
};

// The text of "etc/passwd" or "etc/group" of the root file system; "" where there is none.
struct UserDatabase {
  std::string passwd;
  std::string group;
};

// {"uid", "gid", "additionalGids"} of "USER[:GROUP]", names or numbers.
cachecore::Result<nlohmann::json> RuntimeUser(const std::string& user, const UserDatabase& names);
cachecore::Result<nlohmann::json> RuntimeConfig(const std::string& name,
                                                const nlohmann::json& image_config,
                                                const BundleOptions& options,
                                                const UserDatabase& names);
// EINVAL or what the system says of a volume's source.
cachecore::Status CheckBundleOptions(const BundleOptions& options);
// Writes `bundle`/config.json for the root file system mounted at `bundle`/rootfs.
cachecore::Status WriteBundle(const std::string& bundle, const std::string& name,
                              const std::string& image_config, const BundleOptions& options,
                              std::chrono::milliseconds timeout);

}  // namespace host

#endif  // HOST_CONTAINERS_RUNTIME_BUNDLE_H_
