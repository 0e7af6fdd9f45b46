#include <sys/stat.h>

#include <cerrno>
#include <chrono>
#include <iostream>
#include <memory>
#include <string>

#include "cli/command.h"
#include "host/containers/rootfs_image.h"
#include "host/instance/instance_processes.h"
#include "host/instance/privileges.h"
#include "host/service/instance_control.h"

namespace cli {
namespace {

using cachecore::Deadline;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
using host::CheckHasNoMounts;
using host::FindInstanceProcesses;
using host::Instance;
using host::InstanceOptions;
using host::kLockTimeoutText;
using host::LockInstance;
using host::ParseTimeout;
using host::RequireRoot;
using host::StopInstance;

struct StopOptions {
  InstanceOptions instance;
  std::string timeout = kLockTimeoutText;
};

Status Stop(const Instance& instance, std::chrono::milliseconds timeout) {
  RETURN_IF_ERROR(RequireRoot("stopping an instance"));
  struct stat info;
  if (stat(instance.RunDir().c_str(), &info) != 0 && FindInstanceProcesses(instance).empty()) {
    // Not running: nothing to do, unless it is another one that was meant.
    const Status known = instance.CheckIsKnown();
    if (!known.ok()) std::cerr << "holdfast: " << known.message() << "\n";
    return {};
  }
  ASSIGN_OR_RETURN(const UniqueFd lock, LockInstance(instance, Deadline(timeout)));
  RETURN_IF_ERROR(CheckHasNoMounts(instance));
  return StopInstance(instance);
}

int RunStop(const StopOptions& options) {
  const Result<Instance> instance = options.instance.Make();
  if (!instance.ok()) return Fail(instance.status(), kExitUsage);
  const Result<std::chrono::milliseconds> timeout = ParseTimeout(options.timeout);
  if (!timeout.ok()) return Fail(timeout.status(), kExitUsage);
  const Status status = Stop(*instance, *timeout);
  return status.ok() ? kExitOk : Fail(status);
}

}  // namespace

void AddStop(CLI::App* app, int* exit_code) {
  const auto options = std::make_shared<StopOptions>();
  app->add_option("--timeout", options->timeout,
                  "How long to wait for another command on this instance (default: 60s)")
      ->type_name("TIME");
  options->instance.AddTo(app);
  app->callback([options, exit_code] { *exit_code = RunStop(*options); });
}

}  // namespace cli
