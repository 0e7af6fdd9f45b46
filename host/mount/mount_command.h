// MountCommand: what `holdfast mount` does, for its verb and for other commands that mount.
//
// Model    the options of the command line become a MountRequest; an image reference is resolved
//          by its manifest first.
// Errors   EINVAL for a wrong option, which it names; those of MountOperation.
// Threads  one thread only.
// See      holdfast(1) "holdfast mount".

#ifndef HOST_MOUNT_MOUNT_COMMAND_H_
#define HOST_MOUNT_MOUNT_COMMAND_H_

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "host/images/origin_access.h"
#include "host/instance/instance_options.h"
#include "host/mount/mount_operation.h"
#include "host/registries/image_reference.h"
#include "host/registries/registry_options.h"

namespace host {

struct MountOptions {
  InstanceOptions instance;
  std::string url;
  std::string mount_point;
  std::vector<std::string> origins;
  std::string as = "auto";
  int partition = 0;
  std::string offset;
  OriginAccess web;
  std::string verify;
  std::string merkle;
  std::string identity = "query";
  bool renew = false;
  RegistryOptions registry;
  std::string erofs_options;
  bool suid = false;
  bool dev = false;
  bool json = false;
  bool quiet = false;
  bool persist = false;
  std::vector<std::string> repeatable;  // RepeatableOptions, with `persist`.
  std::string timeout = "30s";
  std::string cache_dir;
  std::string request_timeout;
  std::string detach_policy;
  std::string on_full;
  std::string cache_max;
  std::string cache_min_free;
  std::string fetch_size;
  std::string readahead_max;
  bool fetch_exact = false;
  std::string watchdog = "30s";
  bool no_spare = false;
  std::string fetcher_user;
  std::string metrics_listen;
  std::vector<std::string> daemon_flags;
  std::vector<std::string> fetcher_flags;

  void AddTo(CLI::App* app);
};

// What was given to `app`, which has MountOptions, and says of the image and its origins how they
// are mounted, each as --NAME=VALUE; paths are absolute.
std::vector<std::string> RepeatableOptions(const CLI::App& app);

// What the command line asks for; of an image reference its source is still to be resolved.
struct ParsedMount {
  std::optional<ImageReference> reference;
  RegistryAccess access;
  MountRequest request;
};

cachecore::Result<ParsedMount> ParseMount(const MountOptions& options);
// Resolves its reference and mounts.
cachecore::Status MountParsed(ParsedMount* parsed, const cachecore::Deadline& deadline);

// With the arguments of a command line.  The deadline counts as well as --timeout.  No option may
// be given that prints or exits.
cachecore::Status MountByArguments(const std::vector<std::string>& arguments,
                                   const cachecore::Deadline& deadline);

}  // namespace host

#endif  // HOST_MOUNT_MOUNT_COMMAND_H_
