#include <sys/stat.h>

#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/instance_control.h"
#include "cli/instance_processes.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

Status Stop(const Instance& instance) {
  RETURN_IF_ERROR(RequireRoot("stopping an instance"));
  struct stat info;
  if (stat(instance.RunDir().c_str(), &info) != 0 && FindInstanceProcesses(instance).empty()) {
    return {};  // Not running: nothing to do.
  }
  ASSIGN_OR_RETURN(const UniqueFd lock, LockInstance(instance));
  ASSIGN_OR_RETURN(const std::vector<MountRecord> mounts, LiveMounts(instance));
  if (mounts.empty()) return StopInstance(instance);
  std::string list;
  for (const MountRecord& mount : mounts) list += (list.empty() ? "" : ", ") + mount.mount_point;
  return Status(EBUSY, "instance " + instance.name() + " has mounts: " + list +
                           "; unmount them first (holdfast umount)");
}

int RunStop(const InstanceOptions& options) {
  const Result<Instance> instance = options.Make();
  if (!instance.ok()) return Fail(instance.status(), kExitUsage);
  const Status status = Stop(*instance);
  return status.ok() ? kExitOk : Fail(status);
}

}  // namespace

void AddStop(CLI::App* app, int* exit_code) {
  const auto options = std::make_shared<InstanceOptions>();
  options->AddTo(app);
  app->callback([options, exit_code] { *exit_code = RunStop(*options); });
}

}  // namespace cli
