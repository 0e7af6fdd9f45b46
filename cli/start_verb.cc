#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "cachecore/base/deadline.h"
#include "cachecore/base/unique_fd.h"
#include "cli/command.h"
#include "host/instance/privileges.h"
#include "host/instance/settings.h"
#include "host/mount/answering_paths.h"
#include "host/service/instance_control.h"

namespace cli {
namespace {

using cachecore::CatchStopSignals;
using cachecore::Deadline;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
using host::CheckArgumentsAnswer;
using host::EnsureRunning;
using host::Instance;
using host::InstanceOptions;
using host::kCachefilesFlag;
using host::kLockTimeoutText;
using host::LockInstance;
using host::ParseTimeout;
using host::RequireMountRights;
using host::Settings;

struct StartOptions {
  InstanceOptions instance;
  std::string cachefiles_device;
  std::string cache_dir;
  std::string timeout = kLockTimeoutText;
};

Result<Settings> SettingsOf(const StartOptions& options) {
  Settings settings;
  settings.cache_dir = options.cache_dir;
  for (const auto& [name, path] : {std::pair("--cache-dir", options.cache_dir),
                                   std::pair("--cachefiles-device", options.cachefiles_device)}) {
    if (path.empty() || path[0] == '/') continue;
    return Status(EINVAL, std::string(name) + " " + path + " must be an absolute path");
  }
  if (!options.cachefiles_device.empty()) {
    settings.daemon_flags = {kCachefilesFlag + options.cachefiles_device};
  }
  return settings;
}

Status Start(const Instance& instance, const Settings& settings, const Deadline& deadline) {
  RETURN_IF_ERROR(RequireMountRights("starting an instance"));
  ASSIGN_OR_RETURN(const UniqueFd lock, LockInstance(instance, deadline));
  return EnsureRunning(instance, settings, deadline).status();
}

int RunStart(const StartOptions& options) {
  const Result<Instance> instance = options.instance.Make();
  if (!instance.ok()) return Fail(instance.status(), kExitUsage);
  const Result<Settings> settings = SettingsOf(options);
  if (!settings.ok()) return Fail(settings.status(), kExitUsage);
  const Result<std::chrono::milliseconds> timeout = ParseTimeout(options.timeout);
  if (!timeout.ok()) return Fail(timeout.status(), kExitUsage);
  CatchStopSignals();
  const Deadline deadline(*timeout);
  // Not the device itself: one that is there may have no daemon now.
  const std::filesystem::path device = options.cachefiles_device;
  Status status = CheckArgumentsAnswer({options.cache_dir, device.parent_path()}, deadline);
  if (status.ok()) status = Start(*instance, *settings, deadline);
  return status.ok() ? kExitOk : Fail(status);
}

}  // namespace

void AddStart(CLI::App* app, int* exit_code) {
  const auto options = std::make_shared<StartOptions>();
  app->add_option("--cachefiles-device", options->cachefiles_device,
                  "Serve programs of /dev/cachefiles by a device at this path, without a fetcher")
      ->type_name("PATH")
      ->check(host::NotEmpty());
  app->add_option("--cache-dir", options->cache_dir, "Keep the cache there")
      ->type_name("DIR")
      ->check(host::NotEmpty());
  app->add_option("--timeout", options->timeout,
                  "How long the start may take as a whole (default: 60s)")
      ->type_name("TIME");
  options->instance.AddTo(app);
  app->callback([options, exit_code] { *exit_code = RunStart(*options); });
}

}  // namespace cli
